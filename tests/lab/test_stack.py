"""A stack of runs trains each as if it were alone."""

import pandas as pd
import pytest
import tiny_lab
import torch
from tiny_lab import BROKEN, tiny_spec

from asymlib.lab import stack
from asymlib.lab.policy import Policy, stack_policies
from asymlib.lab.stack import train_stacked
from asymlib.records import RunRecord, RunWriter, run_folder
from asymlib.running import run_experiment

pytestmark = pytest.mark.usefixtures("small_lab")
TIMINGS = ["seconds_rollout", "seconds_update"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"))]
# Every setting of the loss that Table 1 varies, twice the same method, and a Section 3 variant.
METHODS = [
    {"method": "grpo"},
    {"method": "grpo", "seed": 1},
    {"method": "grpo_entropy_reg", "entropy_coeff": 0.1},
    {"method": "grpo_entropy_adv"},
    {"method": "dr_grpo"},
    {"method": "pass_at_k"},
    {"method": "asymgrpo_clip_higher", "warmup_seed": 0},
    {"method": "reinforce", "beta_neg": 0.75},
]


def fields(**changes):
    return {"steps": 4, "validation_every": 2, "lr_warmup_steps": 2, "learning_rate": 1e-3} | changes


@pytest.fixture
def folders(warm_results, tmp_path):
    """Results folders for the runs alone and for the same runs in a stack."""
    for name in ("alone", "stacked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "warmup").symlink_to(warm_results / "warmup")
    return tmp_path / "alone", tmp_path / "stacked"


def train_in_stack(specs, results, device="cpu"):
    writers = [RunWriter(spec, run_folder(spec, results)) for spec in specs]
    train_stacked(specs, writers, results, device)
    return [RunRecord(writer.folder) for writer in writers]


def assert_alike(alone: RunRecord, stacked: RunRecord, tolerance=2e-4):
    """The same rollouts and, up to the rounding of sums in another order, the same numbers."""
    assert stacked.is_done and stacked.collapse == alone.collapse
    pd.testing.assert_series_equal(alone.metrics["tokens"], stacked.metrics["tokens"])
    for part in ("metrics", "covariance"):
        a, b = (getattr(record, part).drop(columns=TIMINGS, errors="ignore") for record in (alone, stacked))
        pd.testing.assert_frame_equal(a, b, rtol=tolerance, atol=1e-6)
    pd.testing.assert_frame_equal(alone.evaluation, stacked.evaluation)


@pytest.mark.parametrize("device", DEVICES)
def test_each_run_of_a_stack_is_the_run_alone(folders, device):
    alone, stacked = folders
    specs = [tiny_spec(**fields(**method)) for method in METHODS]
    records = train_in_stack(specs, stacked, device)
    for spec, record in zip(specs, records, strict=True):
        assert_alike(run_experiment(spec, alone), record)
    assert len({record.metrics["grad_norm"].iloc[-1] for record in records}) == len(METHODS)


def test_a_run_that_collapses_leaves_the_others_as_they_are(folders):
    alone, stacked = folders
    specs = [tiny_spec(**fields(), warmup_seed=BROKEN), tiny_spec(**fields(method="asymgrpo")), tiny_spec(**fields(seed=3))]
    broken, *others = train_in_stack(specs, stacked)
    assert broken.is_done and broken.collapse == "a log-prob is not finite at step 1" and broken.metrics.empty
    for spec, record in zip(specs[1:], others, strict=True):
        assert_alike(run_experiment(spec, alone), record)


def test_specs_that_cannot_share_kernels_train_one_stack_after_the_other(folders):
    alone, stacked = folders
    specs = [tiny_spec(**fields()), tiny_spec(**fields(group_size=4)), tiny_spec(**fields(steps=2))]
    for spec, record in zip(specs, train_in_stack(specs, stacked), strict=True):
        assert_alike(run_experiment(spec, alone), record)


def test_a_stack_that_was_cut_off_goes_on_from_its_snapshots(folders, monkeypatch):
    alone, stacked = folders
    steps = 2 * tiny_lab.SNAPSHOT_EVERY + 2
    specs = [tiny_spec(**fields(steps=steps, method=method)) for method in ("grpo", "pos_only")]
    calls = []
    train_step = stack.train_step

    def cut_off(specs, policy, optimizer, step):
        calls.append(step)
        if step == tiny_lab.SNAPSHOT_EVERY + 3 and calls.count(step) == 1:
            raise KeyboardInterrupt
        return train_step(specs, policy, optimizer, step)

    monkeypatch.setattr(stack, "train_step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train_in_stack(specs, stacked)
    sizes = {path.stat().st_size for path in stacked.glob("**/snapshot.pt")}
    assert len(sizes) == 1 and sizes.pop() < 3e6  # one run's state, not the stack's
    records = train_in_stack(specs, stacked)
    assert calls[tiny_lab.SNAPSHOT_EVERY + 3] == tiny_lab.SNAPSHOT_EVERY + 1  # not from the start
    for spec, record in zip(specs, records, strict=True):
        assert_alike(run_experiment(spec, alone), record, tolerance=2e-3)  # differences grow with the steps


def test_a_stack_of_policies_computes_what_each_does():
    policies = [Policy("small", seed) for seed in (1, 2)]
    stack_ = stack_policies(policies)
    tokens = torch.randint(0, 41, (2, 5), generator=torch.Generator().manual_seed(0))
    for run, policy in enumerate(policies):
        torch.testing.assert_close(stack_.logits(stack_.embed(tokens))[run], policy.logits(policy.embed(tokens[run])))
    assert stack_.is_stack and not policies[0].is_stack
