"""Many runs: papermill executes the training notebook for each, several at once or over a Ray cluster; resumable."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runs.records import results_root, run_folder
from ..runs.spec import ExperimentSpec
from ..support.messages import shown
from .notebooks import execute_all, execute_notebook
from .running import state_of


def default_jobs(specs: list[ExperimentSpec]) -> int:
    """One where verl trains, for a run takes every GPU; else as many as there are cores."""
    return 1 if any(spec.engine == "verl" for spec in specs) else os.cpu_count() or 1


def refuse_no_cluster(address: str) -> None:
    """Raise ValueError where nobody listens at HOST:PORT. Ray itself waits for minutes; `auto` and others are left to it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"--ray-address {shown(address, quoted=False)}: no Ray answers there: {error}") from None


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
        return execute_all(tasks, jobs or default_jobs(specs), ended)
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


def _execute_on_ray(tasks: dict[str, tuple], address: str, ended: Callable[[str, str], None]) -> dict[str, str]:
    """As `execute_all`, one core a task, on the cluster's nodes. Raises ValueError if there is no cluster at the address."""
    import ray

    refuse_no_cluster(address)
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
