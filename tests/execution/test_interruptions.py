"""Runs, batches and builds that are killed or interrupted lose nothing that was finished, and go on."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from command_line import MATRIX, asymlib

from asymlib import RunRecord, make_spec
from asymlib.execution import notebooks
from asymlib.execution.running import state_of
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import run_folder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def without_times(record: RunRecord) -> tuple[pd.DataFrame, str, pd.DataFrame]:
    metrics = record.metrics.drop(columns=["seconds_rollout", "seconds_update"])
    return metrics, (record.folder / "evaluation.json").read_text(), record.covariance


def test_a_killed_batch_started_again_ends_with_the_records_of_an_undisturbed_one(tmp_path, cheap_results):
    """Kill the whole process group once a run is past its first snapshot, then start two batches at once."""
    (tmp_path / "m.yaml").write_text(MATRIX)
    specs = load_matrix(tmp_path / "m.yaml")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    command = [sys.executable, "-m", "asymlib", "batch", "m.yaml", "--jobs", "2", "--notebook", str(notebook)]
    environment = os.environ | {"ASYMLIB_RESULTS": str(cheap_results)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **quiet) as process:
        deadline = time.monotonic() + 300
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
    shutil.copytree(cheap_results / "warmup", undisturbed / "warmup")
    for spec in specs:
        text = spec.model_dump_json()
        asymlib("run", "--spec", "-", "--plain", "--results", undisturbed, folder=tmp_path, input=text)
        resumed, whole = RunRecord(run_folder(spec, cheap_results)), RunRecord(run_folder(spec, undisturbed))
        assert resumed.is_done and whole.is_done
        (a, b, c), (x, y, z) = without_times(resumed), without_times(whole)
        pd.testing.assert_frame_equal(a, x, check_exact=True)
        pd.testing.assert_frame_equal(c, z, check_exact=True)
        assert b == y


def interrupt_when(ready, *arguments, folder: Path) -> str:
    """Press Ctrl-C in a command's terminal once `ready(process)`. Returns what it said; nothing that it started may be left."""
    command = [sys.executable, "-m", "asymlib", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}

    def heed_ctrl_c():  # a shell starts what runs behind it deaf to it, and so would be this command if pytest is
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=folder, preexec_fn=heed_ctrl_c, **streams) as process:
        deadline = time.monotonic() + 300
        while not ready(psutil.Process(process.pid)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said and not any(child.is_running() for child in started)
    return said


def command_to_go_on(said: str) -> list[str]:
    """The arguments of the command that an interrupted one names."""
    line = said.split("to go on: ")[1].strip()
    program, *arguments = shlex.split(line)
    assert program == "asymlib"
    return arguments


def test_ctrl_c_in_a_run_keeps_its_snapshot_and_the_command_it_names_goes_on(tmp_path, cheap_results):
    spec = make_spec(method="grpo", steps=200, prompts_per_step=8, prompts_per_minibatch=4, validation_every=200)
    (tmp_path / "my spec.yaml").write_text(spec.model_dump_json())
    folder = run_folder(spec, cheap_results)
    arguments = ("run", "--spec", "my spec.yaml", "--results", cheap_results)
    early = interrupt_when(lambda p: (folder / "metrics.jsonl").exists(), *arguments, folder=tmp_path)
    assert re.search(r"stopped at step \d+ of 200; no snapshot yet, so it will start anew", early)
    late = interrupt_when(lambda p: (folder / "snapshot.pt").exists(), *arguments, folder=tmp_path)
    assert re.search(r"stopped at step ([5-9]\d|1\d\d) of 200; its last snapshot is kept in ", late)
    assert state_of(spec, cheap_results) == "cut off"
    again = asymlib(*command_to_go_on(late), folder=tmp_path)
    assert again.returncode == 0, again.stderr
    record = RunRecord(folder)
    assert record.is_done and record.metrics["step"].tolist() == list(range(1, 201))
    assert len(record.provenance["earlier_attempts"]) == 2


def test_ctrl_c_in_a_batch_stops_all_runs_and_the_command_it_names_goes_on(tmp_path, cheap_results):
    (tmp_path / "m.yaml").write_text(MATRIX)
    specs = load_matrix(tmp_path / "m.yaml")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    arguments = ("batch", "m.yaml", "--jobs", 1, "--results", cheap_results, "--notebook", notebook)
    at_once = interrupt_when(lambda p: p.children(), *arguments, folder=tmp_path)
    assert "stopped; 0 of 2 runs are done and kept" in at_once
    snapshot = run_folder(specs[0], cheap_results) / "snapshot.pt"
    said = interrupt_when(lambda p: snapshot.exists(), *arguments, folder=tmp_path)
    assert "stopped; 0 of 2 runs are done and kept, 1 were cut off and go on from their last snapshot" in said
    assert [state_of(spec, cheap_results) for spec in specs] == ["cut off", "left"]
    assert not list(cheap_results.rglob(".*.ipynb"))
    again = asymlib(*command_to_go_on(said), folder=tmp_path)
    assert again.returncode == 0 and "2 of 2 runs done, 0 failed" in again.stdout


def test_ctrl_c_between_two_submissions_starts_nothing(monkeypatch):
    """On a busy machine a first thread is at work before the second is there: its run would go on to its end, unseen."""
    started = []
    monkeypatch.setattr(notebooks, "execute_notebook", lambda name: started.append(name) or "")

    class Interrupted(dict):
        def items(self):
            yield "first", ("first",)
            time.sleep(0.5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notebooks.execute_all(Interrupted(), jobs=1, ended=lambda name, error: None)
    assert started == []
    assert notebooks.execute_all({"first": ("first",)}, jobs=1, ended=lambda name, error: None) == {} and started == ["first"]


def test_ctrl_c_that_the_system_hands_to_another_thread_is_heard_at_once(monkeypatch):
    """The main thread, which alone heeds it, must not sleep until a run ends."""

    def long_run(name: str) -> str:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        heard.wait(60)
        return ""

    heard = threading.Event()
    monkeypatch.setattr(notebooks, "execute_notebook", long_run)
    monkeypatch.setattr(notebooks, "_end", lambda processes: heard.set())
    began, own = time.monotonic(), signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest itself may be deaf to it
    try:
        with pytest.raises(KeyboardInterrupt):
            notebooks.execute_all({"first": ("first",)}, jobs=1, ended=lambda name, error: None)
    finally:
        signal.signal(signal.SIGINT, own)
    assert heard.is_set() and time.monotonic() - began < 30


def test_ctrl_c_in_a_build_leaves_the_older_notebook_whole(tmp_path):
    (tmp_path / "results" / "quick" / "runs").mkdir(parents=True)
    (tmp_path / "books").mkdir()
    cells = [nbformat.v4.new_code_cell("open('started', 'w').close()\nimport time\ntime.sleep(120)")]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    metadata = {"kernelspec": kernel, "asymlib": {"profiles": ["all"]}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "books" / "20_slow.ipynb")
    built = tmp_path / "results" / "quick" / "notebooks" / "20_slow.ipynb"
    built.parent.mkdir()
    built.write_text("the older one")
    started = tmp_path / "books" / "started"  # a notebook runs in its own folder
    said = interrupt_when(lambda p: started.exists(), "build", "quick", "--notebooks", "books", folder=tmp_path)
    assert "stopped; 0 of 1 notebooks are built and kept" in said and command_to_go_on(said)[0] == "build"
    assert [path.name for path in built.parent.iterdir()] == ["20_slow.ipynb"] and built.read_text() == "the older one"
