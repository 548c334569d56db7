"""The estimator as verl calls it, against verl's own; the plugin as verl loads it."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from asymlib import get_method, group_advantages
from asymlib.methods import CATALOGUE
from asymlib.verl import plugin
from asymlib.verl.estimator import method_of

G, P, T = 8, 40, 5


def rollouts(sizes=(G,) * P, seed=0):
    """Random rewards on each response's last token, groups of `sizes` in shuffled rows."""
    generator = np.random.default_rng(seed)
    uids = np.array([f"{i:x}" for i, size in enumerate(sizes) for _ in range(size)], dtype=object)
    uids = generator.permutation(uids)
    lengths = torch.as_tensor(generator.integers(1, T + 1, len(uids)))
    difficulty = {uid: generator.random() for uid in np.unique(uids)}
    rewards = torch.tensor([float(generator.random() < difficulty[uid]) for uid in uids])
    mask = (torch.arange(T) < lengths[:, None]).float()
    token_rewards = torch.nn.functional.one_hot(lengths - 1, T) * rewards[:, None]
    return uids, rewards, mask, token_rewards


def advantages(uids, mask, token_rewards, estimator="asymlib", block=None, **named):
    """Through verl's own dispatch."""
    data = DataProto.from_dict(
        tensors={"token_level_rewards": token_rewards.clone(), "response_mask": mask}, non_tensors={"uid": uids}
    )
    config = OmegaConf.create({"asymlib": block} if block else {})
    return compute_advantage(data, adv_estimator=estimator, config=config, **named).batch["advantages"]


def test_grpo_is_verls_but_for_the_bessel_correction():
    uids, _, mask, token_rewards = rollouts()
    ours = advantages(uids, mask, token_rewards, block={"method": "grpo"})
    theirs = advantages(uids, mask, token_rewards, "grpo") * (G / (G - 1)) ** 0.5
    assert theirs.abs().max() > 2  # there is something to compare
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # verl adds 1e-6 to the standard deviation


def test_dr_grpo_is_verls_without_the_standard_deviation():
    uids, _, mask, token_rewards = rollouts(seed=1)
    ours = advantages(uids, mask, token_rewards, block={"method": "dr_grpo"})
    theirs = advantages(uids, mask, token_rewards, "grpo", norm_adv_by_std_in_grpo=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "verls", "named"),
    [
        ("grpo_sample_std", "grpo", {}),
        ("rloo", "rloo", {}),
        ("best_sample", "grpo_passk", {"config": {"norm_adv_by_std_in_grpo": False}}),
    ],
)
def test_relatives_that_verl_has_are_verls(name, verls, named):
    uids, _, mask, token_rewards = rollouts(seed=5)
    ours = advantages(uids, mask, token_rewards, block={"method": name})
    theirs = ADV_ESTIMATOR_REGISTRY[verls](
        token_level_rewards=token_rewards, response_mask=mask, index=uids, **{k: OmegaConf.create(v) for k, v in named.items()}
    )[0]
    assert theirs.abs().max() >= 1
    torch.testing.assert_close(ours, theirs * mask, rtol=1e-5, atol=1e-5)  # verl adds 1e-6 to the standard deviation


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_method_gives_its_table_on_every_token_of_the_mask(name):
    uids, rewards, mask, token_rewards = rollouts(seed=2)
    given = advantages(uids, mask, token_rewards, block={"method": name, "entropy_advantage": None})  # the trainer's part
    torch.testing.assert_close(given, group_advantages(rewards, uids, CATALOGUE[name])[:, None] * mask)


def test_entropy_advantage_is_refused_under_another_trainer():
    uids, _, mask, token_rewards = rollouts()
    with pytest.raises(ValueError, match=r"'grpo_entropy_adv'.* needs trainer.v1.trainer_mode=asymlib"):
        advantages(uids, mask, token_rewards, block={"method": "grpo_entropy_adv"})


def test_a_change_of_the_method_stands_beside_it():
    uids, rewards, mask, token_rewards = rollouts(seed=3)
    given = advantages(uids, mask, token_rewards, block={"method": "asymgrpo", "beta_pos": 0.75})
    torch.testing.assert_close(given[:, 0], group_advantages(rewards, uids, get_method("asymgrpo", beta_pos=0.75)))


def test_a_mask_takes_the_unsolved_groups_out():
    rewards, uids = torch.tensor([0.0, 0, 1, 1, 0, 1]), np.array(list("aabbcc"), dtype=object)  # none, all and half solved
    given = advantages(uids, torch.ones(6, 1), rewards[:, None], block={"method": "reinforce", "mask_none_solved": True})
    assert given[:, 0].tolist() == [0, 0, 1, 1, -1, 1]


def test_padding_and_unequal_groups():
    uids, rewards, mask, token_rewards = rollouts(sizes=(8, 8, 5, 3, 7), seed=4)
    padded = np.append(uids, ["pad0123"] * 2)
    zeros = torch.zeros(2, T)
    given = advantages(padded, torch.cat([mask, zeros]), torch.cat([token_rewards, zeros]), block={"method": "ent_increase"})
    torch.testing.assert_close(given[:-2], group_advantages(rewards, uids, CATALOGUE["ent_increase"])[:, None] * mask)
    assert not given[-2:].any()


def test_a_group_too_small_for_its_curve_gets_nothing_and_a_warning(caplog):
    uids = np.array(["a"] * 2 + ["b"] * 8, dtype=object)
    token_rewards = torch.tensor([[1.0], [0.0]] * 5)
    with caplog.at_level(logging.WARNING):
        given = advantages(uids, torch.ones(10, 1), token_rewards, block={"method": "ent_increase"})
    assert not given[:2].any() and given[2:].any()
    assert "a group of 2 gets advantage 0" in caplog.text


def test_rewards_that_are_not_binary_are_refused():
    uids = np.array(["a"] * 2, dtype=object)
    with pytest.raises(ValueError, match=r"rewards\[1\]=0.5: every reward must be 0 or 1"):
        advantages(uids, torch.ones(2, 1), torch.tensor([[1.0], [0.5]]), block={"method": "grpo"})


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({}, "algorithm.asymlib.method is missing"),
        ({"beta_pos": 0.5}, "algorithm.asymlib.method is missing"),
        ({"method": "asymgpro"}, "unknown method 'asymgpro': did you mean .*'asymgrpo'"),
        ({"method": "asymgrpo", "beta_pso": 0.5}, "unknown key of algorithm.asymlib 'beta_pso': did you mean 'beta_pos'"),
        ({"method": "asymgrpo", "beta_pos": -1}, "beta_pos=-1: .*greater than or equal to 0"),
        ({"method": "asymgrpo", "pass_k": 5}, "pass_k=5: must stay unset"),
    ],
)
def test_a_wrong_block_is_refused_in_a_sentence(block, sentence):
    with pytest.raises(ValueError, match=sentence):
        method_of(OmegaConf.create({"asymlib": block} if block else {}))


def test_lists_of_hydra_reach_the_method():
    method = method_of(OmegaConf.create({"asymlib": {"method": "grpo", "entropy_advantage": [0.2, 3]}}))
    assert method.entropy_advantage == (0.2, 3.0)


@pytest.mark.parametrize("registry", [ADV_ESTIMATOR_REGISTRY, TRAINER_REGISTRY])
def test_the_guard_tells_that_the_plugin_did_not_load(monkeypatch, registry):
    plugin.assert_registered()
    monkeypatch.delitem(registry, "asymlib")
    with pytest.raises(RuntimeError, match=r"verl has no .* 'asymlib'"):
        plugin.assert_registered()


@pytest.mark.parametrize("plugins", ["auto", "none"])
def test_verl_loads_the_plugin_by_its_entry_point_or_stops_before_training(plugins):
    """get_trainer_cls is the first thing that verl's task runner does in its Ray worker."""
    program = "import verl; from verl.trainer.ppo.v1 import get_trainer_cls; print(get_trainer_cls('asymlib').__name__)"
    environment = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": plugins}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if plugins == "auto":
        assert done.stdout.split()[-1:] == ["DiagnosingTrainer"], done.stderr
    else:
        assert done.returncode and "Unknown trainer 'asymlib'" in done.stderr
