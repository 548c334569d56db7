"""TRL's trainer with our advantages: on a tiny chat model, against group_advantages, TRL's own and transformers' log-probs."""

import copy
import json
import os
import re
import subprocess
import sys
from math import comb, sqrt
from pathlib import Path

import pytest
import tiny_chat
import torch
from datasets import Dataset

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
trl = pytest.importorskip("trl")

from asymlib import METHODS, covariance_by_accuracy, get_method, group_advantages, length_normalized_log_prob  # noqa: E402
from asymlib.trl import AsymGRPOTrainer, loss_settings  # noqa: E402

G, PROMPTS = 4, 6  # rollouts a prompt, prompts a generation
QUESTIONS = [[{"role": "user", "content": f"what is {i} + {i + 1} ?"}] for i in range(PROMPTS)]


def first_token_is_odd(completion_ids, **_):
    return [float(ids[0] % 2) for ids in completion_ids]


class Watched(AsymGRPOTrainer):
    """Keeps, of every generation, the rewards, the policy that sampled, and the batch before TRL shuffles it."""

    def _generate_and_score_completions(self, inputs):
        before = copy.deepcopy(self.model.state_dict())
        batch = super()._generate_and_score_completions(inputs)
        self.__dict__.setdefault("seen", []).append((self.rewards_N, before, batch))
        return batch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(tiny_chat.write_checkpoint(tmp_path_factory.mktemp("chat")))


@pytest.fixture
def trainer(checkpoint, tmp_path):
    def make(method="asymgrpo", reward=first_token_is_odd, **settings):
        defaults = {
            "output_dir": str(tmp_path), "num_generations": G, "per_device_train_batch_size": G * PROMPTS, "max_steps": 1,
            "max_completion_length": 5, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "use_cpu": True,
            "bf16": False, "disable_tqdm": True, "report_to": [], "model_init_kwargs": {"dtype": "float32"}, "max_grad_norm": 0,
        }  # fmt: skip
        config = trl.GRPOConfig(**defaults | loss_settings(method) | settings)
        return Watched(checkpoint, reward, config, Dataset.from_dict({"prompt": QUESTIONS}), method=method)

    return make


def log_probs_of(trainer, weights, batch):
    """(B, T) log-probs of the responses by transformers' own forward pass."""
    model = copy.deepcopy(trainer.model)
    model.load_state_dict(weights)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    with torch.no_grad():
        logits = model.lm_head(model.model(input_ids=ids, attention_mask=mask).last_hidden_state)
    start = batch["prompt_ids"].shape[1]
    log_probs = logits[:, start - 1 : -1].log_softmax(-1)
    return log_probs.gather(2, batch["completion_ids"][..., None])[..., 0], -(log_probs.exp() * log_probs).sum(-1)


def logged(trainer, name):
    return [line[name] for line in trainer.state.log_history if name in line]


def test_the_file_s_name_does_not_hide_the_package():
    assert AsymGRPOTrainer.__mro__[1] is trl.GRPOTrainer and Path(trl.__file__).name == "__init__.py"


def test_it_trains_with_the_method_s_advantages(trainer):
    asym = trainer(max_steps=3)
    start = copy.deepcopy(asym.model.state_dict())
    asym.train()
    assert any((start[name] != value).any() for name, value in asym.model.state_dict().items())
    assert len(asym.seen) == 3
    for rewards_N, _, batch in asym.seen:
        k_N = rewards_N.view(-1, G).sum(1).repeat_interleave(G)
        assert len(set(k_N.tolist()) - {0.0, float(G)}) >= 2  # the groups have something to say
        by_hand = torch.where(rewards_N == 1, ((G - k_N) / k_N) ** 0.9, -((k_N / (G - k_N)) ** 0.4)).nan_to_num()
        torch.testing.assert_close(batch["advantages"], by_hand)
    assert list(asym._logs["advantages"]) == pytest.approx(by_hand.tolist())


def test_grpo_is_trl_s_own_but_for_the_divisor_of_its_deviation_and_its_epsilon(trainer, monkeypatch):
    """TRL divides by the deviation with divisor G - 1, plus 1e-4; Eq. 4 and 6 by the one with divisor G."""
    theirs, compute = [], trl.GRPOTrainer._generate_and_score_completions
    monkeypatch.setattr(
        trl.GRPOTrainer,
        "_generate_and_score_completions",
        lambda self, inputs: theirs.append(batch := dict(compute(self, inputs))) or dict(batch),
    )
    grpo = trainer("grpo")
    grpo.train()
    ((rewards_N, _, batch),) = grpo.seen
    p_N = rewards_N.view(-1, G).mean(1).repeat_interleave(G)
    deviation_N = (p_N * (1 - p_N)).sqrt()
    expected_N = batch["advantages"] * deviation_N / (deviation_N * sqrt(G / (G - 1)) + 1e-4)
    assert expected_N.abs().max() > 0.5
    torch.testing.assert_close(theirs[0]["advantages"], expected_N)


def test_the_diagnostics_are_those_of_the_paper(trainer):
    asym = trainer()
    asym.train()
    ((rewards_N, before, batch),) = asym.seen
    mask, groups_N = batch["completion_mask"], torch.arange(len(rewards_N)) // G
    old, _ = log_probs_of(asym, before, batch)
    new, _ = log_probs_of(asym, asym.model.state_dict(), batch)
    gained = ((new - old) * mask).sum(1)[rewards_N == 1].mean().item()
    assert abs(gained) > 1e-3
    assert logged(asym, "asymlib/log_prob_increment_pos") == [pytest.approx(gained, rel=1e-3)]
    accuracy_P = rewards_N.view(-1, G).mean(1)
    assert logged(asym, "asymlib/all_solved") == [pytest.approx((accuracy_P == 1).float().mean().item())]
    assert logged(asym, "asymlib/none_solved") == [pytest.approx((accuracy_P == 0).float().mean().item())]
    table = covariance_by_accuracy(length_normalized_log_prob(old, mask), batch["advantages"], rewards_N, groups_N)
    assert len(table) >= 2
    for row in table.itertuples():
        (value,) = logged(asym, f"asymlib/covariance/{row.accuracy:.3f}")
        assert value == pytest.approx(row.covariance, abs=1e-5)


def test_the_increment_is_measured_once_a_generation_and_covariance_in_the_first_40(trainer, monkeypatch):
    monkeypatch.setattr("asymlib.trl.COVARIANCE_STEPS", 2)
    asym = trainer(max_steps=6, steps_per_generation=2, per_device_train_batch_size=G * PROMPTS // 2)
    asym.train()
    assert [len(asym.seen), len(logged(asym, "asymlib/all_solved"))] == [3, 3]
    (first, *_), *_ = asym.seen[-1:]
    lines = asym.state.log_history
    assert [line["step"] for line in lines if "asymlib/log_prob_increment_pos" in line] == [2, 4, 6]
    assert {line["step"] for line in lines if any("covariance" in key for key in line)} == {1, 3}
    assert len(first) == G * PROMPTS


def test_the_entropy_advantage_is_added_token_by_token(trainer):
    asym = trainer(get_method("grpo_entropy_adv", entropy_advantage=(0.1, 2.0)))  # either side of the minimum occurs
    asym.train()
    ((rewards_N, before, batch),) = asym.seen
    plain = group_advantages(rewards_N, torch.arange(len(rewards_N)) // G, METHODS["grpo"])[:, None]
    _, entropy = log_probs_of(asym, before, batch)
    bonus = torch.minimum(0.1 * entropy, plain.abs() / 2)
    seen, mask = batch["advantages"], batch["completion_mask"].bool()
    assert bonus[mask].unique().numel() > 10
    torch.testing.assert_close(seen[mask], (plain + bonus)[mask], atol=1e-4, rtol=1e-4)


def test_what_is_logged_lies_in_tensorboard_s_event_files(trainer, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asym = trainer()
    asym.train()
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    (none_solved,) = events.Scalars("train/asymlib/none_solved")
    assert none_solved.value == pytest.approx(logged(asym, "asymlib/none_solved")[0])


@pytest.mark.parametrize(
    ("method", "settings", "sentence"),
    [
        ("asymgrpo_clip_higher", {"epsilon_high": 0.2}, "epsilon_high=0.2: method 'asymgrpo_clip_higher' needs 0.28; see"),
        ("asymgrpo_clip_higher", {"epsilon_high": None}, "epsilon_high=0.2: method 'asymgrpo_clip_higher' needs 0.28"),
        ("grpo", {"epsilon": 0.1}, "epsilon=0.1: method 'grpo' needs 0.2"),
        ("grpo_entropy_reg", {"entropy_coef": 0.0}, "entropy_coef=0.0: method 'grpo_entropy_reg' needs 0.001"),
        ("dr_grpo", {"loss_type": "dapo"}, "loss_type='dapo': method 'dr_grpo' needs 'dr_grpo'"),
        ("grpo", {"loss_type": "cispo"}, "loss_type='cispo': method 'grpo' needs 'dapo'"),
        ("asymgrpo", {"beta": 0.04}, "beta=0.04: method 'asymgrpo' needs 0.0"),
        ("grpo", {"importance_sampling_level": "sequence"}, "importance_sampling_level='sequence': .* needs 'token'"),
        ("pass_at_k", {}, "num_generations=4: method 'pass_at_k' does not allow it, pass_k=5: must lie in 1..group_size"),
        ("ent_increase", {"num_generations": 2}, "num_generations=2: .* a flipped curve needs a whole number >= 3"),
    ],
)
def test_settings_that_are_not_the_method_s_are_refused(trainer, method, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        trainer(method, **settings)


def test_a_correction_for_vllm_s_log_probs_is_refused_where_vllm_samples(trainer):
    assert trainer("asymgrpo", vllm_importance_sampling_correction=True)
    with pytest.raises(ValueError, match="vllm_importance_sampling_correction=True: method 'asymgrpo' needs False"):
        trainer("asymgrpo", vllm_importance_sampling_correction=True, use_vllm=True)


def test_an_unknown_method_is_refused(trainer):
    with pytest.raises(ValueError, match="unknown method 'asymgrp': did you mean 'asymgrpo'"):
        trainer("asymgrp")


@pytest.mark.parametrize(("answer", "shown"), [(0.5, "0.5"), (-1.0, "-1.0"), (None, "nan")])
def test_rewards_other_than_0_and_1_are_refused(trainer, answer, shown):
    graded = trainer(reward=lambda completion_ids, **_: [1.0, answer] + [0.0] * (len(completion_ids) - 2))
    with pytest.raises(ValueError, match=rf"rewards\[1\]={shown}: every reward must be 0 or 1"):
        graded.train()


def test_a_method_of_one_s_own_and_every_method_of_table_1_has_its_settings(trainer):
    mine = get_method("pass_at_k", pass_k=2)
    asym = trainer(mine)
    asym.train()
    ((rewards_N, _, batch),) = asym.seen
    one_right = torch.isclose(rewards_N.view(-1, G).sum(1), torch.tensor(1.0)).repeat_interleave(G)
    mean = 1 - comb(3, 2) / comb(4, 2)  # Pass@2 of one right in four
    advantage = batch["advantages"][one_right & (rewards_N == 1)]
    assert len(advantage) and torch.allclose(advantage, torch.tensor((1 - mean) / sqrt(mean * (1 - mean))))
    assert all(trl.GRPOConfig(output_dir="x", use_cpu=True, bf16=False, **loss_settings(name)) for name in METHODS)


TWO_PROCESSES = """
import json, sys, torch, trl
from datasets import Dataset
from test_trl import G, QUESTIONS, Watched, first_token_is_odd
folder, checkpoint = sys.argv[1:]
config = trl.GRPOConfig(
    folder, num_generations=G, per_device_train_batch_size=6, max_steps=2, max_completion_length=5, learning_rate=1e-2,
    logging_steps=1, save_strategy="no", use_cpu=True, bf16=False, disable_tqdm=True, report_to=[],
    model_init_kwargs={"dtype": "float32"},
)
trainer = Watched(checkpoint, first_token_is_odd, config, Dataset.from_dict({"prompt": QUESTIONS}))
trainer.train()
seen = [[rewards.tolist(), batch["advantages"].tolist()] for rewards, _, batch in trainer.seen]
rank = trainer.accelerator.process_index
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump({"seen": seen, "history": trainer.state.log_history}, file)
"""


@pytest.mark.slow
def test_two_processes_share_groups_and_diagnostics(checkpoint, tmp_path):
    """6 rollouts a process and 4 a group: the middle group lies on both."""
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    # accelerate's launcher of several processes is called --multi_gpu; use_cpu of the configuration puts them on the CPU.
    launch = [
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--main_process_port",
        "0",
    ]
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        *launch,
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        str(script),
        str(tmp_path),
        checkpoint,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for (rewards, a), (same, b) in zip(first["seen"], second["seen"], strict=True):
        assert rewards == same and len(rewards) == 12
        groups = [i // G for i in range(12)]
        assert a + b == pytest.approx(group_advantages(torch.tensor(rewards), groups, METHODS["asymgrpo"]).tolist())
        assert any(a) and any(b)
    lines = [line for line in first["history"] if "asymlib/all_solved" in line]
    assert len(lines) == 2 and all("asymlib/log_prob_increment_pos" in line for line in lines)
    accuracies = [sum(rewards[i : i + G]) / G for rewards, _ in first["seen"] for i in (0, 4, 8)]
    assert [line["asymlib/none_solved"] for line in lines] == [
        pytest.approx(accuracies[i : i + 3].count(0) / 3) for i in (0, 3)
    ]
    assert lines[0].keys() >= {f"asymlib/covariance/{p:.3f}" for p in accuracies[:3]}


@pytest.mark.parametrize("name", ["README.md", "docs/trainers.md"])
def test_the_page_s_lines_train_as_typed(checkpoint, tmp_path, monkeypatch, name):
    page = (Path(__file__).resolve().parents[1] / name).read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1].replace("Qwen/Qwen3-0.6B", checkpoint)
    code = code.replace(
        'GRPOConfig("out", ', 'GRPOConfig("out", max_steps=1, use_cpu=True, bf16=False, max_completion_length=4, '
    )
    lines = [json.dumps({"prompt": question, "answer": "3"}) for question in QUESTIONS]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, name, "exec"), {"__name__": "page"})
    assert (tmp_path / "out" / "checkpoint-1" / "model.safetensors").is_file()
    assert list((tmp_path / "out").rglob("events.out.tfevents*"))
