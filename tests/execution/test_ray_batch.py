"""A batch over a Ray cluster of two nodes on this machine, one of which is lost while it trains."""

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


@pytest.mark.slow
def test_a_batch_survives_the_loss_of_a_node(tmp_path, cheap_results, cluster):
    other = add_node(cluster)
    cluster.wait_for_nodes()
    (tmp_path / "m.yaml").write_text(MATRIX)
    folders = [run_folder(spec, cheap_results) for spec in load_matrix(tmp_path / "m.yaml")]
    notebook = str(ROOT / "notebooks" / "10_train.ipynb")
    options = ["--ray-address", cluster.address, "--results", str(cheap_results), "--notebook", notebook]
    command = [sys.executable, "-m", "asymlib", "batch", "m.yaml", *options]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            deadline = time.monotonic() + 240
            while not all((folder / "snapshot.pt").exists() for folder in folders):  # both nodes train
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
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
