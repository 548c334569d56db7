"""Whole runs of verl over 2 and 4 ranks: FSDP2 over gloo, Ray, rollouts that fail; the first step against one process."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from failing_rollout import fails
from recompute import recompute_run
from safetensors.torch import load_file

from asymlib import make_spec, run_experiment
from asymlib.execution.running import state_of
from asymlib.lab import export
from asymlib.runs.records import RunRecord, run_folder
from asymlib.verl.cpu.settings import ENVIRONMENT

ROOT = Path(__file__).parents[2]
STEPS = 20  # some must be left when the interrupted processes have ended
MODULES = "asymlib.verl.cpu.platform,failing_rollout"
# One mini-batch a step, which is what can be recomputed; so few tokens of a micro-batch that a rank has several.
FIELDS = dict(
    validation_every=2,
    profile="cpu",
    engine="verl",
    prompts_per_step=6,
    prompts_per_minibatch=6,
    learning_rate=1.5e-4,
    max_response_tokens=13,
)
OVERRIDES = '["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=192"]'
pytestmark = pytest.mark.slow


@pytest.fixture
def policy(tmp_path, monkeypatch):
    """A policy of the lab, whose embeddings are tied; the machine of the runs is set by `ranks`."""
    monkeypatch.setattr(export, "VALIDATION_PROMPTS", 10)
    monkeypatch.setitem(ENVIRONMENT, "VERL_USE_EXTERNAL_MODULES", MODULES)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests'}:{ROOT}")
    monkeypatch.setenv("ASYMLIB_OVERRIDES", OVERRIDES)
    with tempfile.TemporaryDirectory(prefix="ranks", dir="/tmp", ignore_cleanup_errors=True) as short:  # for Ray's sockets
        monkeypatch.setenv("TMPDIR", short)
        yield export.export_policy("small", 0, ROOT / "results", tmp_path / "policy")


def assert_first_step_is_one_process_s(record: RunRecord, policy: Path, ranks: int) -> None:
    one, kept, rows = recompute_run(record.folder, policy)
    line, spec = record.metrics.iloc[0], record.spec
    failing = {line["uid"].split("_")[0] for line, row in zip(kept, rows, strict=True) if fails(row.prompt)}
    assert failing and len(kept) == spec.prompts_per_step * spec.group_size - len(failing)
    assert len(kept) % ranks  # so verl added rows of padding
    tokens = sum(len(row.response) for row in rows)
    assert (line.tokens, line.reward) == (tokens, pytest.approx(sum(row["score"] for row in kept) / len(kept)))
    assert line.entropy == pytest.approx(torch.cat(one.entropy).mean().item(), rel=1e-5)
    assert line.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    # On every replica. Float32 is off by about 1e-5 nats over a run, more on another processor; bfloat16 by 1e-2.
    assert record.metrics.rollout_log_prob_gap.max() < 1e-4


@pytest.mark.parametrize(("ranks", "method"), [(2, "asymgrpo"), (4, "dr_grpo")])  # both aggregations of the loss
def test_ranks_are_cut_off_resumed_and_merged(policy, tmp_path, monkeypatch, ranks, method):
    """The sharded checkpoint, merged by verl's own tool, has the weights that verl saved whole."""
    monkeypatch.setenv("ASYMLIB_GPUS_PER_NODE", str(ranks))
    spec, results = make_spec(method=method, policy=str(policy), steps=STEPS, **FIELDS), tmp_path / "results"
    folder = run_folder(spec, results)

    def interrupt(line):
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(spec, results, interrupt)
    assert state_of(spec, results) == "cut off"
    actor = folder / "checkpoints" / "global_step_2" / "actor"
    assert len(list(actor.glob(f"model_world_size_{ranks}_rank_*.pt"))) == ranks
    merge = ["merge", "--backend", "fsdp", "--local_dir", str(actor), "--target_dir", str(tmp_path / "merged")]
    subprocess.run([sys.executable, "-W", "ignore", "-m", "verl.model_merger", *merge], check=True, capture_output=True)
    merged, whole = (load_file(next(path.glob("*.safetensors"))) for path in (tmp_path / "merged", actor / "huggingface"))
    assert merged.keys() <= whole.keys() and len(merged) > 5
    for name, tensor in merged.items():  # the merger rounds to bfloat16
        torch.testing.assert_close(tensor.float(), whole[name].float(), rtol=2**-8, atol=1e-6)

    record = run_experiment(spec, results)
    assert record.metrics.step.tolist() == list(range(1, STEPS + 1)) and len(record.provenance["earlier_attempts"]) == 1
    assert 2 <= record.provenance["resumed_from"] < STEPS and record.provenance["verl"]["gpus_per_node"] == ranks
    assert_first_step_is_one_process_s(record, policy, ranks)
