"""A matrix of specs -> papermill, as many at once as there are cores (verl: one after the other), resumable.

A matrix is a YAML file:

    defaults: {profile: lab, policy: small, steps: 500}     fields of every spec
    axes:                                                   the product of these lists
      method: [grpo, {method: reinforce, entropy_coeff: 0.01}]      an entry that is a mapping sets several fields
      seed: [100, 101, 102]
    exceptions:                                             where all of `when` match ...
      - {when: {method: grpo, seed: 102}, skip: true}       ... the spec is left out
      - {when: {policy: base}, set: {steps: 300}}           ... or changed
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .experiment import ExperimentSpec, make_spec
from .records import results_root, run_folder
from .running import state_of
from .validation import near_names, one_sentence


class Change(BaseModel):
    """One exception of a matrix."""

    model_config = ConfigDict(extra="forbid")
    when: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    skip: bool = False


class Matrix(BaseModel):
    model_config = ConfigDict(extra="forbid")
    defaults: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(min_length=1)
    exceptions: list[Change] = Field(default_factory=list)

    def specs(self) -> list[ExperimentSpec]:
        """The specs in order of the axes, each once. Raises ValueError in one sentence."""
        found: dict[str, ExperimentSpec] = {}
        for choice in itertools.product(*self.axes.values()):
            fields = dict(self.defaults)
            for axis, value in zip(self.axes, choice, strict=True):
                fields |= value if isinstance(value, dict) else {axis: value}
            skip = False
            for change in self.exceptions:
                if all(fields.get(k) == v for k, v in change.when.items()):
                    fields |= change.set
                    skip |= change.skip
            if not skip:
                spec = make_spec(**fields)
                found.setdefault(spec.run_id, spec)
        return list(found.values())


def load_matrix(path: Path | str) -> list[ExperimentSpec]:
    """The specs of a matrix file. Raises ValueError, in one sentence that names the file, for anything wrong in it."""
    fields = read_yaml(path)
    unknown = set(fields) - set(Matrix.model_fields)
    if unknown:
        name = sorted(unknown, key=str)[0]
        raise ValueError(f"{path}: unknown key {name!r}: {near_names(name, Matrix.model_fields)}")
    try:
        return Matrix.model_validate(fields).specs()
    except ValidationError as error:
        raise ValueError(f"{path}: {one_sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML mapping with text keys. Raises ValueError in one line."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        near = difflib.get_close_matches(Path(path).name, [p.name for p in Path(path).parent.glob("*")])
        hint = f"; did you mean {near[0]!r}?" if near and isinstance(error, FileNotFoundError) else ""
        raise ValueError(f"{path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: must be a YAML mapping, not {type(content).__name__}")
    return content


def default_jobs(specs: list[ExperimentSpec]) -> int:
    """One where verl trains, for a run takes every GPU; else as many as there are cores."""
    return 1 if any(spec.engine == "verl" for spec in specs) else os.cpu_count() or 1


def run_batch(
    specs: list[ExperimentSpec],
    notebook: Path,
    results: Path | None = None,
    jobs: int | None = None,
    report: Callable[[ExperimentSpec, str, str], None] = lambda spec, state, message: None,
    ray_address: str | None = None,
) -> dict[str, str]:
    """Execute `notebook` through papermill for every spec that is not done. Returns each failed run_id's message.

    On this machine, or spread over a Ray cluster whose nodes see the same folders: the run of a node that is lost goes on from
    its snapshot on another. A spec's run happens under its lock, so two batches may share a matrix. `report` hears of each spec
    as it ends. The executed notebook stays beside the record as `train.ipynb`.
    """
    results = Path(results or results_root())
    waiting: dict[str, ExperimentSpec] = {}
    for spec in specs:
        state = state_of(spec, results)
        if state in ("done", "collapsed"):
            report(spec, state, "was there")
        else:
            waiting[spec.run_id] = spec
    tasks = {name: _task(spec, notebook, results) for name, spec in waiting.items()}

    def ended(name: str, error: str) -> None:
        report(waiting[name], state_of(waiting[name], results), error)

    if ray_address is None:
        return _execute_all(tasks, jobs or default_jobs(specs), ended)
    if any(spec.engine == "verl" for spec in specs):
        raise ValueError(
            f"--ray-address {ray_address}: spreads runs of the lab; `asymlib verl launch` takes a cluster for one run"
        )
    return _execute_on_ray(tasks, ray_address, ended)


def _task(spec: ExperimentSpec, notebook: Path, results: Path) -> tuple[Path, Path, dict[str, Any]]:
    settings = spec.model_dump(mode="json")
    parameters = {name: settings.pop(name) for name in ("method", "method_changes", "policy", "seed", "steps", "profile")}
    parameters |= {"settings": settings, "results": str(results.resolve())}
    return notebook, run_folder(spec, results) / "train.ipynb", parameters


def _execute_all(tasks: dict[str, tuple], jobs: int | None, ended: Callable[[str, str], None]) -> dict[str, str]:
    """`execute_notebook` with each task's arguments, in threads: each has a kernel of its own, which ends with this process.

    `ended` hears each task's name and error ("" if none) as it ends. Returns the errors. Ctrl-C stops all kernels and what they
    started: records are written so that this loses no more than the steps since a snapshot.
    """
    import papermill  # noqa: F401 - slow: here once, not in every thread

    futures: dict[Future, str] = {}
    failures: dict[str, str] = {}
    bystanders = _children()
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        try:
            for name, arguments in tasks.items():
                futures[pool.submit(execute_notebook, *arguments)] = name
            for future in as_completed(futures):
                error = future.exception()
                if error:
                    failures[futures[future]] = str(error)
                ended(futures[future], str(error or ""))
        except BaseException:
            logging.getLogger("papermill").disabled = True  # it would call each stopped kernel an error
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):
                _end(_children() - bystanders)
            raise
    return failures


def _execute_on_ray(tasks: dict[str, tuple], address: str, ended: Callable[[str, str], None]) -> dict[str, str]:
    """As `_execute_all`, one core a task, on the cluster's nodes. Raises ValueError if there is no cluster at the address."""
    import ray

    try:
        ray.init(address, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"--ray-address {address}: {str(error).splitlines()[0]}") from None
    failures: dict[str, str] = {}
    execute = ray.remote(num_cpus=1)(execute_notebook)  # Ray's own default: a task of a lost node is tried three times more
    waiting = {execute.remote(*arguments): name for name, arguments in tasks.items()}
    try:
        while waiting:
            [reference], _ = ray.wait(list(waiting))
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                failures[waiting[reference]] = str(getattr(error, "cause", None) or error)
            name = waiting.pop(reference)
            ended(name, failures.get(name, ""))
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        ray.shutdown()
    return failures


def _children() -> set:
    import psutil  # comes with the kernels

    return set(psutil.Process().children(recursive=True))


def _end(processes: set, patience: float = 5.0) -> None:
    """Ask them to end and wait; after `patience` seconds make them."""
    import psutil

    for stop in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                stop(process)
        _, processes = psutil.wait_procs(processes, timeout=patience)
    time.sleep(0.1)  # a thread may be about to start its kernel


WITHOUT_RECORDS = ("00_start_here.ipynb", "03_play.ipynb", "10_train.ipynb", "11_evaluate.ipynb")  # they train, play, evaluate


def notebooks_of(profile: str, folder: Path) -> list[Path]:
    """The numbered notebooks of `folder`: all for profile 'quick', for the others those that draw from records."""
    found = [p for p in sorted(folder.glob("[0-9]*.ipynb")) if profile == "quick" or p.name not in WITHOUT_RECORDS]
    if not found:
        raise ValueError(f"{folder}: holds no numbered notebook")
    return found


def build(
    profile: str,
    sources: list[Path],
    results: Path | None = None,
    jobs: int | None = None,
    report: Callable[[str, str], None] = lambda name, message: None,
) -> dict[str, str]:
    """Execute notebooks into `results/<profile>/notebooks/`; they leave its figures and tables. Returns failures by name."""
    results = Path(results or results_root()).resolve()
    target, parameters = results / profile / "notebooks", {"profile": profile, "results": str(results)}
    return _execute_all({p.name: (p.resolve(), target / p.name, parameters) for p in sources}, jobs, report)


def execute_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Papermill without its progress bar; `target` appears whole. Raises RuntimeError with the failing cell's error."""
    import papermill  # slow to import, and reading results does not need it

    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", PYDEVD_DISABLE_FILE_VALIDATION="1")
    failure = None
    try:
        papermill.execute_notebook(
            source,
            partial,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # each would warn that it listens on localhost by TCP
            resources={"metadata": {"path": str(source.parent)}},  # papermill's cwd changes that of all threads
        )
    except papermill.PapermillExecutionError as error:
        failure = RuntimeError(f"{source.name}: {error.ename}: {error.evalue}")
    except BaseException:  # the kernel died: an older, whole notebook is worth more than this one
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)
    if failure:
        raise failure
