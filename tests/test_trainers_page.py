"""docs/trainers.md: our half of every hook, with stand-ins for the trainers that were read and not run."""

import asyncio
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from asymlib import METHODS, group_advantages

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "trainers.md").read_text()
REWARDS = [1.0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1]  # p = 1/4, 3/4 and 1
GROUPS = [i // 4 for i in range(12)]
EXPECTED = pytest.approx([3**0.9, *[-(3**-0.4)] * 3, *[3**-0.9] * 3, -(3**0.4), 0, 0, 0, 0])


def block(mark: str) -> str:
    """The page's one Python block that has `mark` in it."""
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.S) if mark in code]
    return found


def run(code: str, **names) -> dict:
    exec(compile(code, "docs/trainers.md", "exec"), names)
    return names


@pytest.fixture
def stand_in(monkeypatch):
    """stand_in("a.b", name=object): `from a.b import name` works."""

    def make(module: str, **names) -> None:
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            name = ".".join(parts[:i])
            if name not in sys.modules:
                monkeypatch.setitem(sys.modules, name, ModuleType(name))
        vars(sys.modules[module]).update(names)

    return make


def test_the_three_lines():
    names = run(block("advantages = group_advantages(rewards, groups"), rewards=REWARDS, groups=GROUPS)
    assert list(names["advantages"]) == EXPECTED


def test_prime_rl_s_custom_advantage(stand_in):
    stand_in("prime_rl.orchestrator.advantage", AdvantageOutputs=SimpleNamespace)
    asymgrpo = run(block("AdvantageOutputs"))["asymgrpo"]
    groups = [[{"reward": reward} for reward in REWARDS[i : i + 4]] for i in (0, 4, 8)]
    assert [a for group in groups for a in asymgrpo(SimpleNamespace(rollouts=group)).advantages] == EXPECTED


def test_prime_rl_s_algorithm(stand_in):
    given = []
    stand_in("prime_rl.orchestrator.algo.base", Algorithm=object, iter_trainable_traces=lambda traces: enumerate(traces))
    stand_in("prime_rl.orchestrator.algo.routing", assign_advantages=lambda trace, advantage: given.append(advantage))
    algorithm = run(block("score_group"))["AsymGRPOAlgorithm"]()
    for i in (0, 4, 8):
        scored = algorithm.score_group([SimpleNamespace(reward=reward) for reward in REWARDS[i : i + 4]])
        with ThreadPoolExecutor() as thread:  # this one may have a loop already: a browser test's
            thread.submit(asyncio.run, scored).result()
    assert given == EXPECTED


def test_skyrl_s_estimator(stand_in):
    registry = {}
    stand_in(
        "skyrl.backends.skyrl_train.utils.ppo_utils",
        register_advantage_estimator=lambda name: lambda function: registry.setdefault(name, function),
    )
    run(block("register_advantage_estimator"))
    mask = torch.ones(12, 3)
    mask[:, 2] = 0
    rewards = torch.tensor(REWARDS)[:, None] * torch.tensor([0.0, 1, 0])
    advantages, returns = registry["asymgrpo"](token_level_rewards=rewards, response_mask=mask, index=GROUPS, config=None)
    assert advantages[:, 0].tolist() == advantages[:, 1].tolist() == EXPECTED and not advantages[:, 2].any()
    assert returns is advantages


def test_openrlhf_s_branch():
    names = {"torch": torch, "group_advantages": group_advantages, "get_method": METHODS.get}
    rewards = run(block("rewards.numel()"), rewards=torch.tensor(REWARDS).view(3, 4), **names)["rewards"]
    assert rewards.shape == (3, 4) and rewards.flatten().tolist() == EXPECTED


def test_verl_s_two_overrides_are_enough():
    """The page's overrides over verl's own configuration, through verl's own registry; nothing of our launch or trainer."""
    from hydra import compose, initialize_config_module
    from verl.protocol import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    import asymlib.verl.plugin  # noqa: F401  (what verl's entry point loads)

    (command,) = [line for line in PAGE.splitlines() if line.startswith("python -m verl.trainer.main_ppo")]
    overrides = command.split("YOUR_OVERRIDES ")[1].split()
    assert len(overrides) == 2
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides)
    assert config.trainer.v1.trainer_mode != "asymlib"
    mask = torch.ones(12, 2)
    rewards = torch.tensor(REWARDS)[:, None] * torch.tensor([0.0, 1])
    data = DataProto.from_dict({"token_level_rewards": rewards, "response_mask": mask}, {"uid": [f"{g:x}" for g in GROUPS]})
    found = compute_advantage(data, adv_estimator=config.algorithm.adv_estimator, config=config.algorithm)
    assert found.batch["advantages"][:, 0].tolist() == found.batch["advantages"][:, 1].tolist() == EXPECTED
