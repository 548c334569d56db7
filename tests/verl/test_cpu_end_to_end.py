"""verl's main_ppo on a CPU, as a user runs it: started from a shell, interrupted, finished from the notebook, drawn."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import papermill
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asymlib import make_spec, run_experiment
from asymlib.execution.running import state_of
from asymlib.lab import export
from asymlib.runs.records import RunRecord, load_runs, run_folder
from asymlib.verl.cpu.settings import ENVIRONMENT, benchmarks

ROOT = Path(__file__).parents[2]
FIELDS = dict(method="grpo_entropy_adv", profile="cpu", seed=1, steps=4)
SETTINGS = dict(
    engine="verl", prompts_per_step=8, prompts_per_minibatch=4, learning_rate=1.5e-4, max_response_tokens=13, validation_every=2
)
DEADLINE = 900  # seconds of either attempt; 60 to 90 on two idle cores, many times that on busy ones


@pytest.fixture
def short_tmp(monkeypatch):
    """A short TMPDIR of our own (Ray's sockets must lie in a short path): what is left in it or still uses it is a leftover."""
    with tempfile.TemporaryDirectory(prefix="e2e", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def processes_with(text: str) -> list[int]:
    """Processes whose environment holds `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # ended, or not ours
            continue
    return found


def assert_nothing_left(folder: Path) -> None:
    until = time.monotonic() + 60  # a worker whose node has ended needs a moment, many on a busy machine, to notice and end
    while processes_with(str(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not processes_with(str(folder))
    assert all(path.name.startswith("ckpt_") for path in folder.iterdir())  # verl's own lock files, empty


def wait_for(condition, process, log):
    until = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.mark.slow
def test_a_rollout_that_hangs_ends_the_run_with_the_log_s_last_lines(tmp_path, short_tmp, monkeypatch):
    monkeypatch.setattr(export, "VALIDATION_PROMPTS", 10)
    policy = export.export_policy("small", 0, ROOT / "results", tmp_path / "policy")
    monkeypatch.setitem(ENVIRONMENT, "VERL_USE_EXTERNAL_MODULES", "asymlib.verl.cpu.platform,hanging_rollout")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{ROOT}")
    monkeypatch.setenv("ASYMLIB_PATIENCE", "90")  # Ray and verl say something new more often than this while they start
    spec = make_spec(**FIELDS, **SETTINGS, policy=str(policy))
    with pytest.raises(RuntimeError, match=r"(?s)no step and no news in its log for 90 seconds after step 0 of 4.*ends:"):
        run_experiment(spec, tmp_path / "results")
    assert "a rollout that hangs" in (run_folder(spec, tmp_path / "results") / "main_ppo.log").read_text()
    assert_nothing_left(short_tmp)


@pytest.mark.slow
def test_train_interrupt_resume_evaluate_and_draw(tmp_path, short_tmp, monkeypatch):
    monkeypatch.setattr(export, "VALIDATION_PROMPTS", 10)
    results = tmp_path / "results"
    policy = export.export_policy("small", 0, ROOT / "results", tmp_path / "policy")
    spec = make_spec(**FIELDS, **SETTINGS, policy=str(policy))
    folder, log = run_folder(spec, results), tmp_path / "log"

    options = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "asymlib", "run", FIELDS["method"], "--policy", str(policy), "--profile", "cpu"]
    command += ["--seed", "1", "--steps", "4", "--results", str(results), "--plain", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_for(lambda: len(RunRecord(folder).metrics) >= 3, process, log)
        assert state_of(spec, results) == "running" and processes_with(str(short_tmp))
        process.send_signal(signal.SIGTERM)
        process.wait(90)
    assert_nothing_left(short_tmp)
    assert state_of(spec, results) == "cut off"

    notebook = tmp_path / "10_train.ipynb"
    parameters = FIELDS | {"policy": str(policy), "settings": SETTINGS, "results": str(results)}
    papermill.execute_notebook(ROOT / "notebooks" / "10_train.ipynb", notebook, parameters, cwd=ROOT, progress_bar=False)
    assert '"image/png"' in notebook.read_text()  # the curves
    assert_nothing_left(short_tmp)

    record = RunRecord(folder)
    assert record.is_done and record.collapse is None and record.metrics.step.tolist() == [1, 2, 3, 4]
    assert "Resuming from" in (log_ := (folder / "main_ppo.log").read_text()) and "global_step_2" in log_
    metrics = record.metrics
    assert {"reward", "entropy", "all_solved", "none_solved", "log_prob_increment_pos", "grad_norm", "tokens"} <= set(metrics)
    assert metrics.val_acc.notna().tolist() == [False, True, False, True]
    assert metrics[["entropy", "grad_norm", "seconds_rollout", "seconds_update"]].gt(0).all(axis=None)
    assert metrics.rollout_log_prob_gap.max() < 1e-4
    assert record.covariance.groupby("step").size().tolist() == [8] * 4
    assert record.evaluation.benchmark.tolist() == benchmarks(spec)
    assert all(len(correct) == 10 for correct in record.evaluation.correct) and set(record.evaluation.samples) == {5}
    assert record.evaluation.step.iloc[0] in (2, 4) and len(record.provenance["earlier_attempts"]) == 1
    assert record.metrics.rollouts.tolist() == [spec.prompts_per_step * spec.group_size] * 4
    (best,) = (folder / "checkpoints").glob("global_step_*")
    assert best.name == f"global_step_{record.evaluation.step.iloc[0]}" and not list(best.rglob("*.pt"))
    assert load_runs(results / "cpu").run_id.tolist() == [spec.run_id]
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    steps = {event.step for event in events.Scalars("actor/entropy")}
    assert steps == {1, 2, 3, 4}

    before, after = (load_file(path / "model.safetensors") for path in (policy, best / "actor" / "huggingface"))
    assert before.keys() == after.keys() and all(not torch.equal(before[name], after[name]) for name in before)
