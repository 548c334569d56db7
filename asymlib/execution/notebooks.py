"""Notebooks through papermill, several at once: those of a batch, and those that draw a profile's figures and tables."""

import atexit
import contextlib
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

from ..analysis.selection import NothingToDraw
from ..runs.records import results_root
from ..support.files import read_json

LONGEST_SOCKETS = 107 - len("-5")  # a socket's path has at most 107 characters, and a kernel has five


def execute_all(tasks: dict[str, tuple], jobs: int | None, ended: Callable[[str, str], None]) -> dict[str, str]:
    """`execute_notebook` with each task's arguments, in threads: each has a kernel of its own, which ends with this process.

    `ended` is told each task's name as it ends, and its error or what it lacked ("" if neither). Returns the errors; a notebook
    with nothing to draw is left out, which is none. Ctrl-C stops all kernels and what they started: records are written so that
    this loses no more than the steps since a snapshot.
    """
    import papermill  # noqa: F401 - slow: here once, not in every thread
    import psutil  # comes with the kernels

    this, failures = psutil.Process(), {}
    bystanders = set(this.children(recursive=True))
    all_known, is_stopped = threading.Event(), threading.Event()

    def execute(arguments: tuple) -> str:
        all_known.wait()  # else Ctrl-C between two submissions would leave a run that nobody stops
        return "" if is_stopped.is_set() else execute_notebook(*arguments)

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        futures = {}
        try:
            futures |= {pool.submit(execute, arguments): name for name, arguments in tasks.items()}
            all_known.set()
            for future in _ended(set(futures)):
                name, error = futures[future], future.exception()
                is_left_out = isinstance(error, NothingToDraw)
                if error and not is_left_out:
                    failures[name] = str(error)
                lacking = "" if error else future.result()
                said = f"built; {lacking}" if lacking else str(error or "")
                ended(name, f"left out: {error}" if is_left_out else said)
        except BaseException:
            is_stopped.set()
            all_known.set()
            logging.getLogger("papermill").disabled = True  # it would call each stopped kernel an error
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):
                _end(set(this.children(recursive=True)) - bystanders)
            raise
    return failures


def _ended(futures: set[Future]) -> Iterable[Future]:
    """Each as it ends. Python hears Ctrl-C only in the main thread, and the system may hand it to another: so wake to look."""
    while futures:
        done, futures = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
        yield from done


def _end(processes: set) -> None:
    """Ask them to end and wait; after five seconds make them."""
    import psutil

    for stop in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                stop(process)
        _, processes = psutil.wait_procs(processes, timeout=5)
    time.sleep(0.1)  # a thread may be about to start its kernel


def is_notebook(path: Path) -> bool:
    """Whether the file is JSON with a list of cells."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return isinstance(read_json(path)["cells"], list)
    return False


def notebooks_of(profile: str, folder: Path) -> list[Path]:
    """The numbered notebooks of `folder` whose metadata names the profile, or "all", under asymlib.profiles."""
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        try:
            served = read_json(path)["metadata"]["asymlib"]["profiles"]
            if not isinstance(served, list) or not is_notebook(path):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            names = '{"asymlib": {"profiles": ["all"]}}'
            raise ValueError(f"{path}: its metadata must name the profiles that it serves: {names}") from None
        found += [path] if {profile, "all"} & set(served) else []
    if not found:
        raise ValueError(f"{folder}: holds no numbered notebook for profile {profile!r}")
    return found


def build(
    profile: str,
    sources: list[Path],
    results: Path | None = None,
    jobs: int | None = None,
    report: Callable[[str, str], None] = lambda name, message: None,
) -> dict[str, str]:
    """Execute notebooks into `results/<profile>/notebooks/`; they leave its figures and tables. Returns failures by name."""
    from papermill import inspect_notebook  # slow to import, and reading results does not need it

    results = Path(results or results_root()).resolve()
    target, parameters = results / profile / "notebooks", {"profile": profile, "results": str(results)}
    tasks = {}
    for path in sources:  # papermill says a line about each parameter that a notebook does not have
        known = inspect_notebook(path)
        own = {name: value for name, value in parameters.items() if name in known}
        tasks[path.name] = path.resolve(), target / path.name, own
    return execute_all(tasks, jobs, report)


def execute_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> str:
    """Papermill without its progress bar; `target` appears whole. Returns what it says of variants without runs. Raises
    RuntimeError with the failing cell's error, or the NothingToDraw that the notebook raised."""
    import papermill  # slow to import, and reading results does not need it

    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_ownerless(target.parent.glob(f".{target.stem}.*.ipynb"))
    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", PYDEVD_DISABLE_FILE_VALIDATION="1")
    failure, said = None, ""
    try:
        said = _said(_execute(source, partial, parameters))
    except papermill.PapermillExecutionError as error:
        has_nothing = error.ename == NothingToDraw.__name__
        failure = NothingToDraw(error.evalue) if has_nothing else RuntimeError(f"{source.name}: {error.ename}: {error.evalue}")
    except BaseException:  # the kernel died: an older, whole notebook is worth more than this one
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)
    if failure:
        raise failure
    return said


def _said(notebook: dict[str, Any]) -> str:
    """The lines of `policies_of`."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    lines = (line for output in outputs for line in output.get("text", "").splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if " has no runs of " in line))


def _execute(source: Path, target: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """One kernel, which talks by files where the system can: free ports are taken by others before a kernel binds them."""
    import papermill
    from traitlets.config import Config

    sockets = _runtime_folder() / uuid.uuid4().hex
    by_files = hasattr(socket, "AF_UNIX") and len(str(sockets)) <= LONGEST_SOCKETS
    how = {"transport": "ipc", "ip": str(sockets)} if by_files else {"transport": "tcp"}
    for last_try in (False, True):
        try:
            return papermill.execute_notebook(
                source,
                target,
                parameters,
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # by TCP each would warn that it listens on localhost
                resources={"metadata": {"path": str(source.parent)}},  # papermill's cwd changes that of all threads
                config=Config({"KernelManager": how | {"connection_file": f"{sockets}.json"}}),
            )
        except RuntimeError as error:
            if by_files or last_try or "Kernel died before replying" not in str(error):
                raise


@cache
def _runtime_folder() -> Path:
    """Where this process's kernels keep connection files and sockets; removed with it, or by the next if it was killed."""
    _remove_ownerless(Path(tempfile.gettempdir()).glob("asymlib.*.kernels"))
    folder = Path(tempfile.gettempdir()) / f"asymlib.{os.getpid()}.kernels"
    folder.mkdir(mode=0o700, exist_ok=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_ownerless(paths: Iterable[Path]) -> None:
    """Remove what killed processes left: files and folders whose name ends in .PID.SUFFIX, where no process has that PID."""
    import psutil

    for path in paths:
        owner = path.name.split(".")[-2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
