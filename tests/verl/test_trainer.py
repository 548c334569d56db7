"""The trainer's measurements on batches made by hand; that verl calls it is shown by test_cpu_end_to_end.py."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from asymlib import METHODS, covariance_by_accuracy
from asymlib.runs.lines import before_first, unsealed
from asymlib.verl import trainer as diagnostics
from asymlib.verl.trainer import DiagnosingTrainer, refuse_long_prompts

UIDS = ["a", "b", "a", "b", "c", "pad0", "c"]  # groups a (one right of two), b (none), c (both), a row of padding
REWARDS = torch.tensor([1.0, 0, 0, 0, 1, 0, 1])
LENGTHS = torch.tensor([2, 1, 3, 2, 1, 0, 2])
N, T = len(UIDS), 3
ACTOR = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "entropy_coeff": 0.0, "loss_agg_mode": "token-mean"}


def batch():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(T) < LENGTHS[:, None]).long()
    floats = {
        name: torch.rand(N, T, generator=generator) for name in ("old_log_probs", "entropy", "log_probs", "rollout_log_probs")
    }
    rewards = torch.zeros(N, T)
    rewards[torch.arange(N), (LENGTHS - 1).clamp(min=0)] = REWARDS
    advantages = torch.tensor([1.0, -0.5, -1.0, -0.5, 0.25, 0, 0.25])[:, None] * mask
    fields = {"response_mask": mask, "rm_scores": rewards, "advantages": advantages} | floats
    return TensorDict(fields, batch_size=N)


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A trainer at step 1 whose base class and TransferQueue do nothing but hold `batch()`."""
    monkeypatch.setattr(PPOTrainerSync, "__init__", lambda self, config: setattr(self, "config", config))
    monkeypatch.setattr(PPOTrainerSync, "_compute_metrics", lambda *_, **__: None)
    monkeypatch.setattr(PPOTrainerSync, "_val_metrics_update", lambda *_, **__: {})
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", lambda self, batch, metrics: batch)
    made = DiagnosingTrainer(config(steps_file=str(tmp_path / "steps.jsonl"), increment_every=2))
    made.global_steps = 1
    return made


KEYS = [f"k{row}" for row in range(N)]


def queue_of(data, stored=None):
    """A TransferQueue that holds `data` by key, in verl's nested form; what is put goes into `stored`."""

    def get(keys, select_fields, **_):
        rows = [KEYS.index(key) for key in keys]

        def nested(name):
            parts = [data[name][i, : max(1, LENGTHS[i])] for i in rows]
            if name == "log_probs":  # as a model gives them: of the next token at each place of prompt and response
                parts = [torch.cat([part, torch.tensor([9.0])]) for part in parts]
            return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

        fields = {n: NonTensorStack(*(UIDS[i] for i in rows)) if n == "uid" else nested(n) for n in select_fields}
        return TensorDict(fields, batch_size=len(rows))

    return SimpleNamespace(kv_batch_get=get, kv_batch_put=lambda fields, **_: stored.update(fields) or "batch")


def finish_step(trainer, **metrics):
    verl = {"actor/pg_clipfrac": 0.125, "actor/grad_norm": 0.5} | metrics
    timing = {"gen": 2.0, "old_log_prob": 0.25, "adv": 0.25, "update_actor": 1.0}
    trainer._compute_metrics(None, verl, timing, global_steps=trainer.global_steps, epoch=0)
    return verl


def lines(trainer):
    found = trainer.steps_file.read_bytes().splitlines(keepends=True)
    return [unsealed(line, before) for before, line in zip([before_first(trainer.steps_file), *found], found, strict=False)]


def test_a_step_is_measured_without_its_padding(trainer):
    data, real = batch(), [0, 1, 2, 3, 4, 6]
    trainer._measure(np.array(UIDS, dtype=object), data)
    mask = data["response_mask"][real].bool()
    assert trainer.measured["reward"] == pytest.approx(0.5)
    assert trainer.measured["entropy"] == pytest.approx(data["entropy"][real][mask].mean().item())
    assert trainer.measured["all_solved"] == trainer.measured["none_solved"] == pytest.approx(1 / 3)
    assert trainer.measured["rollouts"] == 6  # 3 prompts x 2, and none of the padding
    assert trainer.measured["tokens"] == 11 and trainer.measured["response_length"] == pytest.approx(11 / 6)
    expected = covariance_by_accuracy(
        ((data["old_log_probs"] * data["response_mask"]).sum(1) / LENGTHS)[real],
        data["advantages"][real, 0], REWARDS[real], [UIDS[i] for i in real],
    )  # fmt: skip
    assert sorted(trainer.covariance) == [
        pytest.approx([p, c]) for p, c in zip(expected.accuracy, expected.covariance, strict=True)
    ]
    assert any(c != 0 for _, c in trainer.covariance)


def test_a_step_or_a_validation_of_which_too_many_rollouts_failed_ends_the_run(trainer):
    """verl itself goes on with what is left."""
    uids, data = np.array(UIDS, dtype=object), batch()
    trainer.config.data.train_batch_size = 4  # 8 rollouts, of which 6 came
    with pytest.raises(RuntimeError, match="step 1: 6 of 8 rollouts came, the others or their rewards failed"):
        trainer._measure(uids, data)
    assert not trainer.measured
    answers = ["math-500"] * 3, ["u", "v", "w"], {"reward": [1.0, 0.0, 0.0]}, []
    trainer._val_metrics_update(*answers, expected_acc_counts={("math-500", uid): 1 for uid in "uvw"})
    with pytest.raises(RuntimeError, match="step 1: 3 of 4 rollouts came"):
        trainer._val_metrics_update(*answers, expected_acc_counts={("math-500", uid): 1 for uid in "uvwx"})


def test_covariance_of_the_first_40_steps_only(trainer):
    for step, groups in ((40, 3), (41, 0)):
        trainer.global_steps = step
        trainer._measure(np.array(UIDS, dtype=object), batch())
        assert len(trainer.covariance) == groups


def test_rollout_log_probs_are_compared_with_the_policy_s(trainer):
    data = batch()
    data["rollout_log_probs"] = data["old_log_probs"].clone()
    data["rollout_log_probs"][2, 1] += 0.5
    data["rollout_log_probs"][1, 2] += 7  # beyond the response
    data["rollout_log_probs"][5] += 7  # padding
    trainer._measure(np.array(UIDS, dtype=object), data)
    assert trainer.measured["rollout_log_prob_gap"] == pytest.approx(0.5)
    assert trainer.measured["rollout_log_prob_gap_mean"] == pytest.approx(0.5 / 11)


class Workers:
    """Two ranks that write down what they are asked to compute."""

    def __init__(self):
        self.asked, self._dispatch_info = [], {"actor": [0, 1]}

    def compute_log_prob(self, part):
        self.asked.append((list(part.keys), part.extra_info))


def test_the_increment_is_measured_on_right_rollouts_alone_at_its_steps(trainer, monkeypatch):
    data, workers = batch(), Workers()
    trainer.actor_rollout_wg = workers
    monkeypatch.setattr(diagnostics, "tq", queue_of(data))
    meta = KVBatchMeta(keys=KEYS, tags=[{} for _ in KEYS], partition_id="train")
    trainer._measure(np.array(UIDS, dtype=object), data)
    trainer._update_actor(meta, {})
    assert not workers.asked and "log_prob_increment_pos" not in trainer.measured  # every second step
    trainer.global_steps = 2
    trainer._update_actor(meta, {})
    ((keys, extra),) = workers.asked
    assert keys == ["k0", "k4", "k6", "k1"]  # the three right ones, and one more for the second rank
    assert extra == {"calculate_entropy": False, "compute_loss": False, "temperature": 1.0}
    gained = (data["log_probs"] - data["old_log_probs"]) * data["response_mask"]
    assert trainer.measured["log_prob_increment_pos"] == pytest.approx(gained[[0, 4, 6]].sum().item() / 3)
    assert trainer.measured["seconds_increment"] > 0
    data["rm_scores"].zero_()
    trainer._measure(np.array(UIDS, dtype=object), data)
    trainer._update_actor(meta, {})
    assert trainer.measured["log_prob_increment_pos"] is None and len(workers.asked) == 1


def test_entropy_advantage_changes_what_the_actor_gets(trainer, monkeypatch):
    data = batch()

    stored = {}
    monkeypatch.setattr(diagnostics, "tq", queue_of(data, stored))
    meta = type("Meta", (), {"keys": KEYS, "partition_id": "train", "__len__": lambda _: N})()
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, given, metrics: given)
    assert trainer._compute_advantage(meta, {}) is meta and not stored  # GRPO has none
    trainer.method = METHODS["grpo_entropy_adv"]
    assert trainer._compute_advantage(meta, {}) == "batch"
    bonus = torch.minimum(0.4 * data["entropy"], data["advantages"].abs() / 2) * data["response_mask"]
    assert bonus.sum() > 0
    for i, row in enumerate(stored["advantages"].unbind()):
        torch.testing.assert_close(row, (data["advantages"] + bonus)[i, : len(row)])


def test_a_step_is_one_line_and_one_entry_of_verls_log(trainer):
    trainer.measured, trainer.covariance = {"reward": 0.5, "log_prob_increment_pos": None}, [[0.5, 0.125]]
    logged = finish_step(trainer)
    expected = {
        "step": 1, "reward": 0.5, "log_prob_increment_pos": None, "clip_fraction": 0.125, "grad_norm": 0.5,
        "seconds_rollout": 2.0, "seconds_update": 1.5, "memory": None,
    }  # fmt: skip
    assert lines(trainer) == [{"metrics": expected, "covariance": [[0.5, 0.125]]}]
    assert logged["asymlib/reward"] == 0.5 and "asymlib/log_prob_increment_pos" not in logged


def test_a_validation_belongs_to_the_step_that_made_it(trainer):
    answers = ["math-500", "aime", "math-500"], ["u", "v", "w"], {"reward": [1.0, 0.0, 0.0]}
    trainer.global_steps = 0
    trainer._val_metrics_update(*answers, [])  # before training
    trainer.global_steps = 1
    finish_step(trainer)
    trainer.global_steps = 2
    trainer._val_metrics_update(*answers, [], expected_acc_counts=None)
    finish_step(trainer)
    trainer.global_steps = 3
    finish_step(trainer)
    without, with_, after = (line["metrics"] for line in lines(trainer))
    assert not any(key.startswith("val_acc") for key in [*without, *after])
    assert {key: with_[key] for key in with_ if key.startswith("val_acc")} == {
        "val_acc": 0.25, "val_acc/math-500": 0.5, "val_acc/aime": 0.0,
    }  # fmt: skip


def test_a_collapse_is_written_and_ends_the_run(trainer):
    with pytest.raises(FloatingPointError, match="grad_norm is nan at step 1"):
        finish_step(trainer, **{"actor/grad_norm": float("nan")})
    assert lines(trainer) == [{"collapse": "grad_norm is nan at step 1"}]


def config(method="grpo", actor=(), **settings):
    return OmegaConf.create(
        {
            "algorithm": {"asymlib": {"method": method}},
            "actor_rollout_ref": {
                "actor": ACTOR | {"loss_scale_factor": None} | dict(actor),
                "rollout": {"temperature": 1.0, "n": 2},
            },
            "data": {"max_response_length": 13, "train_batch_size": 3},
            "trainer": {"asymlib": settings},
        }
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (config("asymgrpo_clip_higher"), "clip_ratio_high=0.2: method 'asymgrpo_clip_higher' needs 0.28"),
        (config("grpo_entropy_reg"), "entropy_coeff=0.0: method 'grpo_entropy_reg' needs 0.001"),
        (config("dr_grpo"), "loss_agg_mode='token-mean': method 'dr_grpo' needs 'seq-mean-token-sum-norm'"),
        (config("dr_grpo", {"loss_agg_mode": "seq-mean-token-sum-norm"}), "loss_scale_factor=None: .* needs 13"),
        (config(), "trainer.asymlib.steps_file is missing"),
        (config(step_file="x"), "unknown key of trainer.asymlib 'step_file': did you mean 'steps_file'"),
    ],
)
def test_a_configuration_that_is_not_the_methods_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        DiagnosingTrainer(given)


def test_a_prompt_that_verl_would_cut_is_refused_with_its_place(tmp_path):
    """On verl's own data set class, whose rows the agent loop renders in the same way."""
    import pandas as pd
    from tiny_chat import tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    words = [2, 9]  # of the user's turn; "user", "assistant" and "<nothink>" are three more
    rows = [
        {"data_source": "train", "prompt": [{"role": "user", "content": "1 " * n}], "extra_info": {"index": 40 + n}}
        for n in words
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet")

    def dataset(limit):
        settings = {"max_prompt_length": limit, "filter_overlong_prompts": False, "cache_dir": str(tmp_path / "cache")}
        settings |= {"prompt_key": "prompt", "apply_chat_template_kwargs": {"enable_thinking": False}}
        return RLHFDataset(str(tmp_path / "train.parquet"), tokenizer(), OmegaConf.create(settings))

    refuse_long_prompts(dataset(12))
    with pytest.raises(ValueError, match=r"train, row 49: 12 tokens, more than data.max_prompt_length=11"):
        refuse_long_prompts(dataset(11))
