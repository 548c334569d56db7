"""The process that a launch starts: given up when it says nothing, ended with its children, and a cluster's token for it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from asymlib import make_spec, run_experiment
from asymlib.verl import launch
from asymlib.verl.setting import Machine

SPEC = make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", steps=6, validation_every=2)


CHILD = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
if sys.argv[1] == "heeds":
    sys.stdin.read()
else:
    time.sleep(600)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("manner", ["heeds", "hangs"])
def test_leaving_the_block_ends_the_process_and_its_children(tmp_path, monkeypatch, manner):
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launch, "__name__", "child")
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), launch._main_ppo([manner], log, {}) as process:
        while not log.read_text().strip():
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert process.returncode is not None
    grandchild = int(log.read_text())
    until = time.monotonic() + 10
    while is_alive(grandchild) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(grandchild)


def test_slurm_s_other_devices_do_not_reach_verl_which_refuses_them(tmp_path, monkeypatch):
    """Under salloc there is no script of ours that would unset them."""
    (tmp_path / "child.py").write_text("import os; print(sorted(n for n in os.environ if 'DEVICE' in n))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launch, "__name__", "child")
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"):
        monkeypatch.setenv(name, "0,1")
    with launch._main_ppo([], tmp_path / "log", {}) as process:
        process.wait(20)
    assert (tmp_path / "log").read_text() == "['CUDA_VISIBLE_DEVICES']\n"


@pytest.mark.parametrize("length", [launch.LONGEST_TMPDIR, 90])
def test_the_sockets_of_a_ray_of_our_own_have_short_paths_whatever_tmpdir_is(tmp_path, monkeypatch, length):
    """A socket named as Ray names its own: "AF_UNIX path length cannot exceed 107 bytes" ended it under a long TMPDIR."""
    (tmp_path / "child.py").write_text(
        "import os, pathlib, socket\n"
        "folder = pathlib.Path(os.environ['RAY_TMPDIR'], 'ray/session_2026-01-01_00-00-00_000000_1234567/sockets')\n"
        "folder.mkdir(parents=True)\n"
        "socket.socket(socket.AF_UNIX).bind(str(folder / 'plasma_store'))\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder) / ("a" * (length - len(folder) - 1))
        place.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(launch, "__name__", "child")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with launch._main_ppo([], tmp_path / "log", {}) as process:
            assert process.wait(20) == 0, (tmp_path / "log").read_text()


def test_the_process_ends_when_its_launcher_is_killed(tmp_path):
    """`_end_with_launcher` hears the end of standard input, also of a launcher that could not say goodbye."""
    program = "import threading, time; from asymlib.verl import launch; print('up', flush=True); launch._end_with_launcher()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "up\n" and process.poll() is None
    process.stdin.close()
    assert process.wait(20) == -signal.SIGTERM


def test_a_run_that_says_nothing_is_given_up_with_the_log_s_end(tmp_path, monkeypatch):
    """A real process that logs, then hangs, with the heartbeat that verl's processes go on with."""
    beat = "INFO:{time.time()}:pending: 0, running: 8, finished: 0, failure: 0"
    beat += "\\nINFO {time.time()} No available shared memory broadcast block found in 60 seconds"
    (tmp_path / "child.py").write_text(
        "import time; print('syncing weights', flush=True)\n" + f'while True: print(f"{beat}", flush=True); time.sleep(0.3)\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launch, "__name__", "child")
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    monkeypatch.setenv("ASYMLIB_PATIENCE", "5")
    said = r"(?s)no step and no news in its log for 5 seconds after step 0 of 6; .*ends:\n.*running: 8.*broadcast block"
    with pytest.raises(RuntimeError, match=said):
        run_experiment(SPEC, tmp_path)


@pytest.mark.parametrize(("address", "token", "mode"), [(None, True, None), ("a:1", False, None), ("a:1", True, "token")])
def test_a_cluster_s_token_is_used_where_there_is_one(tmp_path, monkeypatch, address, token, mode):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert launch._ray_token(Machine(ray_address=address)).get("RAY_AUTH_MODE") == mode
