"""The commands on many runs: train a matrix, say how far it is, build the notebooks from its records."""

import os
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer
from rich.table import Table

from ..evaluation.sets import data_root
from ..execution.batch import default_jobs, run_batch
from ..execution.notebooks import build as build_notebooks
from ..execution.notebooks import is_notebook, notebooks_of
from ..execution.running import state_of
from ..runs.lines import read_lines
from ..runs.matrix import load_matrix
from ..runs.records import RunRecord, results_root, run_folder
from ..runs.spec import PROFILES, ExperimentSpec
from ..support.messages import refuse_unknown, say
from ..verl.settings import settings
from ..verl.target import machine_of
from .doctor import refuse_unready
from .options import PROFILE, GpusPerNode, Jobs, Matrix, MatrixOrNone, Override, Results, folder_option, notebooks_folder
from .progress import Bar, clock, console, stop
from .rehearse import Tokenizer, rehearse_matrix
from .verl import Nodes, SlurmOption


def batch(
    matrix: Matrix,
    jobs: Jobs = None,
    results: Results = None,
    notebook: Annotated[Path | None, typer.Option(help="The notebook that papermill runs; 10_train.ipynb otherwise.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Spread them over a Ray cluster; auto: this machine's.")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit runs of verl as a job array, --jobs of them at once.")] = False,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    override: Override = None,
    slurm_option: SlurmOption = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Rehearse each run of verl instead: `asymlib verl rehearse`.")
    ] = False,
    tokenizer: Tokenizer = None,
) -> None:
    """Train every spec of a matrix that is not done; exit status 1 if any failed."""
    specs = load_matrix(matrix)
    root = results or results_root()
    machine = {"nodes": nodes, "gpus_per_node": gpus_per_node, "overrides": override}
    _refuse_wrong(specs, root, machine)
    if rehearse:
        if slurm or nodes or slurm_option or ray_address or notebook or jobs:
            taken = "--results, --gpus-per-node, --override and --tokenizer"
            raise ValueError(f"--rehearse takes {taken}: it runs on this machine, one by one")
        return rehearse_matrix(specs, matrix.stem, root, gpus_per_node, override, tokenizer)
    if tokenizer:
        raise ValueError("--tokenizer needs --rehearse")
    if slurm:
        return _submit(specs, matrix.stem, root, jobs, slurm_option, machine)
    if nodes or gpus_per_node or slurm_option:
        raise ValueError("--nodes, --gpus-per-node and --slurm-option need --slurm")
    notebook = notebook or notebooks_folder() / "10_train.ipynb"
    if not notebook.is_file():
        raise ValueError(f"--notebook {notebook}: no such file")
    if not is_notebook(notebook):
        raise ValueError(f"--notebook {notebook}: not a notebook")
    _refuse_unready(specs, root)
    if override:
        os.environ["ASYMLIB_OVERRIDES"] = machine_of(specs[0], override).environment["ASYMLIB_OVERRIDES"]
    try:
        with _BatchBar(matrix.name, specs, root) as bar:
            failures = run_batch(specs, notebook.resolve(), root, jobs, bar.report, ray_address)
    except KeyboardInterrupt:
        states = [state_of(spec, root) for spec in specs]
        done, cut = states.count("done") + states.count("collapsed"), states.count("cut off")
        stop(f"stopped; {done} of {len(specs)} runs are done and kept, {cut} were cut off and go on from their last snapshot")
    say(f"{len(specs) - len(failures)} of {len(specs)} runs done, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


def _refuse_wrong(specs: list[ExperimentSpec], root: Path, machine: dict) -> None:
    """Raise ValueError for a machine that no run of verl could take, and for one that is asked of the lab."""
    for spec in specs:
        if spec.engine == "verl":
            settings(spec, run_folder(spec, root), data_root(root), machine_of(spec, **machine))
        elif machine["overrides"]:
            raise ValueError(f"--override {machine['overrides'][0]}: a setting of verl, but the lab trains {spec.policy!r}")


def _refuse_unready(specs: list[ExperimentSpec], root: Path) -> None:
    """Exit with status 1 where a run of verl that is left could not start here, once for each profile and policy."""
    left = [spec for spec in specs if spec.engine == "verl" and state_of(spec, root) not in ("done", "collapsed")]
    for spec in {(spec.profile, spec.policy): spec for spec in left}.values():
        refuse_unready(spec, root, machine_of(spec))


def _submit(specs: list[ExperimentSpec], name: str, root: Path, at_once: int | None, options, machine: dict) -> None:
    """One job array of the runs that are neither done nor running; its script lies beside their records."""
    from ..verl import slurm as jobs

    if any(spec.engine != "verl" or spec.profile != specs[0].profile for spec in specs):
        raise ValueError("--slurm: takes a matrix whose runs are all of verl and of one profile")
    waiting = [spec for spec in specs if state_of(spec, root) not in ("done", "collapsed", "running")]
    say(f"{len(specs) - len(waiting)} of {len(specs)} runs are done or running, {len(waiting)} are submitted")
    if waiting:
        script = jobs.render(waiting, root, data_root(root), machine_of(specs[0], **machine), options, name, at_once)
        say(jobs.submit(script, root / specs[0].profile / f"{name}.slurm.sh"))


class _BatchBar(Bar):
    """Counts steps, also those of runs that still go on: once a second it reads how far their records are."""

    def __init__(self, name: str, specs: list[ExperimentSpec], results: Path):
        self.left, self.results, self.runs, self.read = {spec.run_id: spec for spec in specs}, results, len(specs), 0.0
        super().__init__(console, f"{name}, steps", sum(spec.steps for spec in specs))

    def report(self, spec: ExperimentSpec, state: str, message: str) -> None:
        """Take note of a run that ended."""
        said = f"{spec.run_id} {spec.variant} {spec.policy} seed {spec.seed}: {state} {message}".rstrip()
        self.console.print(said, soft_wrap=True, markup=False)
        self.left.pop(spec.run_id, None)
        self.count(was_there=message == "was there")

    def count(self, was_there: bool = False) -> None:
        left = list(self.left.values())  # runs end in other threads
        going = sum(len(read_lines(run_folder(spec, self.results))) for spec in left)
        ended = self.tasks[0].total - sum(spec.steps for spec in left)
        self.reached(int(ended) + going, f"{self.runs - len(left)}/{self.runs} runs", was_there)

    def get_renderables(self):
        """What rich asks for at every refresh."""
        if self.tasks and time.monotonic() - self.read > 1:
            self.read = time.monotonic()
            self.count()
        return super().get_renderables()


def status(matrix: MatrixOrNone = None, results: Results = None) -> None:
    """What of a matrix is done, collapsed, running, failed, cut off or left, and the time left; without one, what there is."""
    root = results or results_root()
    if matrix is None:
        return _print_profiles(root)
    specs = load_matrix(matrix)
    states = {spec.run_id: state_of(spec, root) for spec in specs}
    table = Table("variant", "policy", "seeds by state", box=None)
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for spec in specs:
        rows.setdefault((spec.variant, spec.policy), {}).setdefault(states[spec.run_id], []).append(str(spec.seed))
    for (variant, policy), seeds in rows.items():
        table.add_row(variant, policy, "; ".join(f"{state}: {' '.join(s)}" for state, s in seeds.items()))
    console.print(table)
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    say(f"{counts} of {len(specs)}; {_time_left(specs, states, root)}")


def _print_profiles(root: Path) -> None:
    """How many records each profile has, and which matrices there are."""
    table = Table("profile", "records", "finished", box=None)
    for profile in PROFILES:
        try:
            folders = [path for path in (root / profile / "runs").glob("*") if path.is_dir()]
        except OSError as error:
            table.add_row(profile, error.strerror, "")
            continue
        if folders:
            table.add_row(profile, str(len(folders)), str(sum(RunRecord(path).is_done for path in folders)))
    console.print(table if table.row_count else f"no records in {root}")
    for path in sorted((notebooks_folder() / "experiments").glob("*.yaml")):
        say(f"asymlib status {os.path.relpath(path)}")


def _time_left(specs: list[ExperimentSpec], states: dict[str, str], root: Path) -> str:
    """From the wall time a step of the done runs of the same policy."""
    done: dict[str, list[float]] = {}
    for spec in specs:
        if states[spec.run_id] == "done":
            seconds = RunRecord(run_folder(spec, root)).provenance["wall_seconds"]
            done.setdefault(spec.policy, []).append(seconds / spec.steps)
    left = [spec for spec in specs if states[spec.run_id] not in ("done", "collapsed")]
    if not left:
        return "nothing left"
    if any(spec.policy not in done for spec in left):
        return "time left: not known before one run of each policy is done"
    seconds = sum(spec.steps * mean(done[spec.policy]) for spec in left) / default_jobs(left)
    return f"about {clock(seconds)} left, {default_jobs(left)} at once"


def build(
    profile: Annotated[str, typer.Argument(help="Whose records to draw: quick, lab, h100, ...", autocompletion=PROFILE)],
    jobs: Jobs = None,
    results: Results = None,
    notebooks: Annotated[
        Path | None, folder_option("--notebooks", "The numbered notebooks; the nearest notebooks/ otherwise.")
    ] = None,
) -> None:
    """Execute the notebooks on a profile's records: figures, tables, the index of all records; exit status 1 if any failed.

    A notebook whose records are missing is left out and says what it lacks.
    """
    from ..analysis.index import write_index  # scipy is slow to import, and the Tab key should not wait for it

    refuse_unknown("profile", [profile], PROFILES)
    root = results or results_root()
    if not (root / profile / "runs").is_dir():
        raise ValueError(f"profile={profile!r}: {root / profile / 'runs'} does not exist; run a batch of that profile first")
    sources = notebooks_of(profile, notebooks or notebooks_folder())
    ended = []
    try:
        with Bar(console, f"build {profile}", len(sources)) as bar:
            bar.reached(0)

            def report(name: str, message: str) -> None:
                ended.append(name)
                bar.console.print(f"{name}: {message or 'built'}")
                bar.reached(len(ended))

            failures = build_notebooks(profile, sources, root, jobs, report)
    except KeyboardInterrupt:
        stop(f"stopped; {len(ended)} of {len(sources)} notebooks are built and kept, all are built again")
    write_index(root)
    for what in ("figures", "tables", "notebooks"):
        say(f"{what}: {root / profile / what}")
    if failures:
        raise typer.Exit(1)
