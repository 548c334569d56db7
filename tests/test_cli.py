"""The command line as a user types it: each command in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file

from asymlib import RunRecord, make_spec
from asymlib.batch import load_matrix
from asymlib.lab.policy import Policy
from asymlib.lab.warmup import WarmUp
from asymlib.records import run_folder
from asymlib.running import state_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cheap_results(tmp_path_factory):
    """A results folder whose warm-up checkpoint is a policy with random weights: no minute of warm-up."""
    folder = tmp_path_factory.mktemp("cheap")
    (folder / "warmup").mkdir()
    save_file(Policy("small").state_dict(), folder / "warmup" / f"{WarmUp('small', 0).name}.safetensors")
    return folder


MATRIX = """
defaults: {profile: quick, steps: 60, prompts_per_step: 8, prompts_per_minibatch: 4}
axes: {method: [grpo, asymgrpo]}
"""


def asymlib(*arguments, folder: Path, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "asymlib", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **kwargs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "asymgrp"], "unknown method 'asymgrp': did you mean 'asymgrpo'"),
        (["run", "grpo", "--set", "beat_pos=0.9"], "unknown parameter 'beat_pos': did you mean 'beta_pos'?"),
        (["run", "grpo", "--set", "beta_pos=lots"], "beta_pos='lots'"),
        (["run", "grpo", "--set", "beta_pos"], "must read NAME=VALUE"),
        (["run", "grpo", "--seed", "one"], "--seed"),
        (["run", "grpo", "--seed", "-1"], "seed=-1"),
        (["run", "grpo", "--stesp", "3"], "--stesp"),
        (["run", "dr_grpo", "--set", "beta_pos=0.1"], "beta_pos=0.1: must stay unset"),
        (["run"], "method is missing"),
        (["rnu"], "rnu"),
        (["batch", "absent.yaml"], "absent.yaml: No such file"),
        (["batch", "torn.yaml"], "torn.yaml: not YAML"),
        (["batch", "list.yaml"], "list.yaml: must be a YAML mapping, not list"),
        (["batch", "binary.yaml"], "binary.yaml: not a text file"),
        (["batch", "typo.yaml"], "typo.yaml: unknown key 'axis': did you mean 'axes'?"),
        (["batch", "wrong.yaml"], "wrong.yaml: unknown method 'gpro'"),
        (["build", "lab"], "run a batch of that profile first"),
    ],
)
def test_wrong_input_gets_one_line_exit_2_and_writes_nothing(tmp_path, arguments, said):
    (tmp_path / "torn.yaml").write_text("axes: {method: [grpo\n")
    (tmp_path / "list.yaml").write_text("- grpo\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "typo.yaml").write_text("axis: {method: [grpo]}\naxes: {method: [grpo]}\n")
    (tmp_path / "wrong.yaml").write_text("axes: {method: [gpro]}\n")
    before = sorted(tmp_path.rglob("*"))
    result = asymlib(*arguments, folder=tmp_path)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_no_argument_says_what_to_do_next(tmp_path):
    result = asymlib(folder=tmp_path)
    assert result.returncode == 0
    assert "asymlib run asymgrpo" in result.stdout


def test_run_takes_a_yaml_file_and_options_over_it(tmp_path, cheap_results):
    (tmp_path / "spec.yaml").write_text("{method: grpo, steps: 2, prompts_per_step: 8, prompts_per_minibatch: 4}")
    result = asymlib("run", "--spec", "spec.yaml", "--seed", 7, "--plain", "--results", cheap_results, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    spec = make_spec(method="grpo", steps=2, prompts_per_step=8, prompts_per_minibatch=4, seed=7)
    assert RunRecord(run_folder(spec, cheap_results)).is_done
    assert "step 2/2" in result.stdout


def without_times(record: RunRecord) -> tuple[pd.DataFrame, str, pd.DataFrame]:
    metrics = record.metrics.drop(columns=["seconds_rollout", "seconds_update"])
    return metrics, (record.folder / "evaluation.json").read_text(), record.covariance


@pytest.mark.slow
def test_a_killed_batch_started_again_ends_with_the_records_of_an_undisturbed_one(tmp_path, cheap_results):
    """Kill the whole process group once a run is past its first snapshot, then start two batches at once."""
    (tmp_path / "m.yaml").write_text(MATRIX)
    specs = load_matrix(tmp_path / "m.yaml")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    command = [sys.executable, "-m", "asymlib", "batch", "m.yaml", "--jobs", "2", "--notebook", str(notebook)]
    environment = os.environ | {"ASYMLIB_RESULTS": str(cheap_results)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **quiet) as process:
        deadline = time.monotonic() + 120
        while not any((run_folder(spec, cheap_results) / "snapshot.pt").exists() for spec in specs):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    while any(state_of(spec, cheap_results) == "running" for spec in specs):  # what it started must end by itself
        assert time.monotonic() < deadline
        time.sleep(0.1)
    metrics = [run_folder(spec, cheap_results) / "metrics.jsonl" for spec in specs]
    with next(path for path in metrics if path.exists()).open("a") as torn:
        torn.write('{"step": 5')

    status = asymlib("status", "m.yaml", "--results", cheap_results, folder=tmp_path)
    assert "cut off" in status.stdout
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    status = asymlib("status", "m.yaml", "--results", cheap_results, folder=tmp_path)
    assert "2 done of 2; nothing left" in status.stdout

    undisturbed = tmp_path / "undisturbed"
    (undisturbed / "warmup").mkdir(parents=True)
    for weights in (cheap_results / "warmup").glob("*.safetensors"):
        (undisturbed / "warmup" / weights.name).write_bytes(weights.read_bytes())
    for spec in specs:
        text = spec.model_dump_json()
        asymlib("run", "--spec", "-", "--plain", "--results", undisturbed, folder=tmp_path, input=text)
        resumed, whole = RunRecord(run_folder(spec, cheap_results)), RunRecord(run_folder(spec, undisturbed))
        assert resumed.is_done and whole.is_done
        (a, b, c), (x, y, z) = without_times(resumed), without_times(whole)
        pd.testing.assert_frame_equal(a, x, check_exact=True)
        pd.testing.assert_frame_equal(c, z, check_exact=True)
        assert b == y


@pytest.mark.slow
def test_one_failed_run_does_not_stop_the_others_and_the_exit_status_says_so(tmp_path, cheap_results):
    (tmp_path / "m.yaml").write_text(
        "defaults: {profile: quick, steps: 2, prompts_per_step: 8, prompts_per_minibatch: 4}\n"
        "axes: {method: [grpo], warmup_seed: [0, 99]}\n"
    )
    good, bad = load_matrix(tmp_path / "m.yaml")
    (cheap_results / "warmup" / f"{WarmUp('small', 99).name}.safetensors").write_bytes(b"not a checkpoint")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    result = asymlib("batch", "m.yaml", "--results", cheap_results, "--notebook", notebook, folder=tmp_path)
    assert result.returncode == 1
    assert "1 of 2 runs done, 1 failed" in result.stdout
    assert RunRecord(run_folder(good, cheap_results)).is_done
    assert "error" in json.loads((run_folder(bad, cheap_results) / "failed.json").read_text())
    assert "failed" in asymlib("status", "m.yaml", "--results", cheap_results, folder=tmp_path).stdout
