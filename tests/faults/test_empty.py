"""Empty names, overrides, closed folders and orphans at the command line: each was once a traceback or another meaning."""

import os
import shutil
import subprocess
import sys
import time
import warnings

import pytest
import sums

from asymlib import make_spec
from asymlib.cli.main import main
from asymlib.execution.running import PARENT
from asymlib.runs.matrix import load_matrix

POWERLESS = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []  # root without its privilege to write everywhere
needs_setpriv = pytest.mark.skipif(bool(POWERLESS) and not shutil.which("setpriv"), reason="needs setpriv, or not to be root")
VERL = ["verl", "config", "grpo", "--policy", "Qwen/Qwen3-4B", "--resolved", "--override"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["status", ""], "MATRIX='': must not be empty"),
        (["batch", ""], "MATRIX='': must not be empty"),
        (["evaluate", ""], "CHECKPOINT='': must not be empty"),
        (["export", "small", ""], "FOLDER='': must name a folder"),
        (["compare", "grpo", "asymgrpo", "--policy", ""], "--policy='': must not be empty"),
        (["compare", "grpo", "asymgrpo", "--profile", ""], "--profile='': must not be empty"),
        (["run", "--spec", ""], "--spec='': must not be empty"),
        ([*VERL, "trainer.nosuch=1"], "verl's configuration does not take it: Could not override 'trainer.nosuch'"),
    ],
)
def test_it_is_refused_by_name(tmp_path, monkeypatch, capsys, command, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["asymlib", *command])
    with pytest.raises(SystemExit, match="2"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1] and len(lines) == 1 and not list(tmp_path.iterdir())


def test_a_mapping_is_an_override(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["asymlib", *VERL, "+x={a: b, c: [1, 'd e']}"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.endswith("x:\n  a: b\n  c:\n  - 1\n  - d e\n")


def test_an_exception_that_matches_nothing_says_what_it_is_matched_against(tmp_path):
    """The policy's 100 steps are not in the file."""
    matrix = tmp_path / "m.yaml"
    matrix.write_text("axes: {method: [grpo], seed: [0, 1]}\nexceptions: [{when: {steps: 100}, skip: true}]\n")
    with pytest.raises(
        ValueError, match="matches nothing among what defaults, axes and earlier exceptions write; a policy's own"
    ):
        load_matrix(matrix)


@needs_setpriv
@pytest.mark.parametrize("closed", ["lab", "lab/runs"])
def test_a_closed_profile_is_one_warning_and_the_rest_is_read(tmp_path, closed):
    results = tmp_path / "results"
    read, _ = (sums.run(results, make_spec(method="grpo", steps=2, profile=profile)) for profile in ("long", "lab"))
    (results / closed).chmod(0)
    code = f"""
from pathlib import Path
from asymlib import load_runs
from asymlib.analysis.index import index_of
print(*load_runs({str(results)!r}).run_id)
print(*index_of(Path({str(results)!r})).id)
"""
    try:
        command = [*POWERLESS, sys.executable, "-W", "always", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    finally:
        (results / closed).chmod(0o755)
    assert done.stdout.split() == [read.folder.name] * 2, done.stderr
    assert done.stderr.count("UserWarning") == 2 and done.stderr.count("Permission denied") == 2, done.stderr


def test_a_run_whose_parent_is_gone_ends_while_it_does_not_step():
    """As while a warm-up is trained. The parent here never was this process's."""
    code = "import signal, time; from asymlib.execution.running import end_if_orphaned; end_if_orphaned(0.05); time.sleep(60)"
    environment = os.environ | {PARENT: "1"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=59)
    assert done.returncode == -15 and "the snapshot is kept" in done.stderr and time.monotonic() - started < 59
