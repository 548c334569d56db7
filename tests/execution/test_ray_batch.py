"""A batch over a Ray cluster on this machine, which loses a node or its own process while it trains."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from asymlib import make_spec
from asymlib.execution.batch import run_batch
from asymlib.execution.running import state_of
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import RunRecord, run_folder

ROOT = Path(__file__).resolve().parents[2]
MATRIX = """
defaults: {profile: quick, steps: 400, prompts_per_step: 8, prompts_per_minibatch: 4, validation_every: 400}
axes: {method: [grpo, asymgrpo]}
"""


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each. Ray's sockets need a short path."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # the nodes' asymlib is this one
        made = cluster_utils.Cluster()
        try:
            add_node(made, include_dashboard=False)
            yield made
        finally:
            made.shutdown()


def add_node(cluster, attempts=5, **settings):
    """A node of one core. Ray gives a node's agent 15 s to start, which a busy machine may miss (ray#65983)."""
    for attempt in range(attempts):
        try:
            return cluster.add_node(num_cpus=1, **settings)
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == attempts - 1:
                raise


def wait_until(condition, process=None):
    deadline = time.monotonic() + 240
    while not condition():
        assert (process is None or process.poll() is None) and time.monotonic() < deadline
        time.sleep(0.05)


def two_runs(folder, results, cluster):
    """The command that spreads the matrix over the cluster, and its runs' folders."""
    (folder / "m.yaml").write_text(MATRIX)
    options = ["--ray-address", cluster.address, "--results", str(results)]
    options += ["--notebook", str(ROOT / "notebooks" / "10_train.ipynb")]
    folders = [run_folder(spec, results) for spec in load_matrix(folder / "m.yaml")]
    return [sys.executable, "-m", "asymlib", "batch", "m.yaml", *options], folders


@pytest.mark.slow
def test_a_batch_survives_the_loss_of_a_node(tmp_path, cheap_results, cluster):
    other = add_node(cluster)
    cluster.wait_for_nodes()
    command, folders = two_runs(tmp_path, cheap_results, cluster)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_until(lambda: all((folder / "snapshot.pt").exists() for folder in folders), process)  # both nodes train
            cluster.remove_node(other, allow_graceful=False)
            said, _ = process.communicate(timeout=300)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == 0, said
    assert "2 of 2 runs done, 0 failed" in said
    records = [RunRecord(folder) for folder in folders]
    assert all(record.is_done and len(record.metrics) == 400 for record in records)
    assert sorted(len(record.provenance["earlier_attempts"]) for record in records) == [0, 1]  # one went on elsewhere
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("was there") == 2


@pytest.mark.slow
def test_a_batch_whose_own_process_is_killed_goes_on_when_it_is_run_again(tmp_path, cheap_results, cluster):
    command, folders = two_runs(tmp_path, cheap_results, cluster)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any((folder / "snapshot.pt").exists() for folder in folders), process)
        process.send_signal(signal.SIGKILL)
    specs = load_matrix(tmp_path / "m.yaml")
    wait_until(lambda: "running" not in [state_of(spec, cheap_results) for spec in specs])  # Ray ends a dead driver's tasks
    assert not any((folder / "done.json").exists() for folder in folders)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "2 of 2 runs done, 0 failed" in again.stdout, again.stdout + again.stderr
    records = [RunRecord(folder) for folder in folders]
    assert all(record.is_done and record.metrics.step.tolist() == list(range(1, 401)) for record in records)
    assert sorted(len(record.provenance["earlier_attempts"]) for record in records) == [0, 1]


def test_a_cluster_that_is_not_there_and_runs_of_verl_are_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    paper = make_spec(method="grpo", policy="Qwen/Qwen3-4B")
    with pytest.raises(ValueError, match="--ray-address auto: spreads runs of the lab"):
        run_batch([paper], ROOT / "notebooks" / "10_train.ipynb", tmp_path, ray_address="auto")
    pytest.importorskip("ray")
    with pytest.raises(ValueError) as error:
        run_batch([make_spec(method="grpo")], ROOT / "notebooks" / "10_train.ipynb", tmp_path, ray_address="auto")
    assert str(error.value).startswith("--ray-address auto: ") and "\n" not in str(error.value)
    assert not list(tmp_path.rglob("spec.json"))
