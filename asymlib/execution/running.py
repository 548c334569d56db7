"""Run one spec on its engine: under the run's lock, skipping what is done, resuming what was cut off."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ..runs.records import RunRecord, run_folder
from ..runs.spec import ExperimentSpec
from ..runs.writer import RunWriter, record_failure
from ..support.files import naming, results_folder

Train = Callable[[ExperimentSpec, RunWriter, Path], None]
PARENT = "ASYMLIB_PARENT"  # set for a child process: the pid with which it ends


def end_if_orphaned(every: float = 1.0) -> None:
    """End this process by SIGTERM within `every` seconds once the one that started it by `run_in_subprocess` is gone.

    Whatever it does then, a warm-up or an evaluation too: a killed batch leaves nothing running.
    """

    def watch() -> None:
        while os.getppid() == int(os.environ[PARENT]):
            time.sleep(every)
        print("the process that started this run is gone; the snapshot is kept", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    if PARENT in os.environ:
        threading.Thread(target=watch, daemon=True).start()


def run_experiment(
    spec: ExperimentSpec, results: Path | None = None, on_step: Callable[[dict], None] = lambda metrics: None
) -> RunRecord:
    """Train `spec` to its end and return its record; a run that is done is returned as it is.

    A finished record that is damaged is moved to results/set-aside/ first.
    `on_step` hears each step's metrics. Waits while another process runs the same spec, then takes that one's record. An error
    is left in the folder's `failed.json` and raised.
    """
    results = results_folder(results)
    folder = run_folder(spec, results)
    train = _engine(spec.engine)
    if (record := RunRecord(folder)).is_done:  # which needs no permission to write
        return record
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder / ".lock"):
        lock = FileLock(folder / ".lock").acquire()  # the system frees it however this process ends
    with lock:
        if (record := RunRecord(folder)).is_done:  # by the process that we waited for
            return record
        if record.has_ended:  # a damaged record, or one of another method by this name: it is not ours to delete
            where = record.set_aside(results)
            warnings.warn(f"{folder} is no result ({record.fault}): it is in {where} now, the run starts anew", stacklevel=2)
        writer = RunWriter(spec, folder, on_step)
        try:
            train(spec, writer, results)
        except Exception as error:
            record_failure(folder, error)
            raise
        return RunRecord(folder)


def _engine(name: str) -> Train:
    """Loaded before anything is written: one whose packages are missing leaves nothing behind."""
    if name == "lab":
        from ..lab.trainer import train  # torch is needed to train, not to read results
    elif importlib.util.find_spec("verl") is None:
        raise ModuleNotFoundError("No module named 'verl'", name="verl")
    else:
        from ..verl.launch import train
    return train


def run_in_subprocess(
    spec: ExperimentSpec,
    results: Path | None = None,
    watch: Callable[[RunRecord], None] = lambda record: None,
    every: float = 1.0,
) -> RunRecord:
    """`run_experiment` in a process of its own, its output in the run's `train.log`: what the notebooks call.

    `watch` is called with the record every `every` seconds. Raises RuntimeError with the log's last lines if the run fails.
    """
    results = results_folder(results)
    folder = run_folder(spec, results)
    record = RunRecord(folder)
    if record.is_done:
        return record
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    command = [sys.executable, "-m", "asymlib", "run", "--spec", "-", "--results", str(results), "--plain"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", PARENT: str(os.getpid())}
    with log.open("a") as output:  # another process may be running this spec, with this log
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True, env=environment)
        try:
            process.stdin.write(spec.model_dump_json())
            process.stdin.close()
            polled = time.monotonic()
            while process.poll() is None:
                time.sleep(0.05)
                if time.monotonic() - polled >= every:
                    watch(RunRecord(folder))
                    polled = time.monotonic()
        except BaseException:  # an interrupted notebook stops its run; the snapshot stays
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise RuntimeError(f"run {spec.run_id} ({spec.variant}) failed with status {process.returncode}:\n{tail}")
    return RunRecord(folder)


def state_of(spec: ExperimentSpec, results: Path | None = None) -> str:
    """'done', 'collapsed', 'running', 'failed', 'cut off' or 'left'."""
    folder = run_folder(spec, results)
    record = RunRecord(folder)
    if record.is_done:
        return "collapsed" if record.collapse else "done"
    if is_locked(folder):
        return "running"
    if os.path.exists(folder / "failed.json"):  # False where it may not be read
        return "failed"
    return "cut off" if os.path.exists(folder / "metrics.jsonl") else "left"


def is_locked(folder: Path) -> bool:
    """Whether a process runs the folder. Asking writes nothing, and those who ask do not see each other."""
    try:
        import fcntl

        with (folder / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ModuleNotFoundError):  # no lock, or a system without this kind
        return False
    return False
