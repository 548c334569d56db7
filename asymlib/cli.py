"""The command line: what the notebooks do, from a shell. Wrong input: one line on standard error, exit status 2."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from .batch import build as build_notebooks
from .batch import default_jobs, load_matrix, notebooks_of, run_batch
from .doctor import ENGINES, examine
from .experiment import LAB_POLICIES, PROFILES, ExperimentSpec
from .methods import METHODS
from .options import Jobs, Matrix, MethodName, Policy, Profile, Results, RunName, Seed, Set, SpecFile, Steps, one_of, spec_of
from .progress import Bar, Pace, clock
from .records import RunRecord, results_root, run_folder
from .running import check_stackable, run_experiment, run_stacked, state_of, stop_if_orphaned
from .validation import refuse_unknown
from .verl import data_commands
from .verl.commands import app as verl

UsageError = typer.BadParameter.__base__  # typer's own or click's, whichever this typer uses; it names neither in public

app = typer.Typer(add_completion=True, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(verl, name="verl")
app.add_typer(data_commands.data, name="data")
app.command()(data_commands.evaluate)
console = Console()

NEXT_STEPS = """asymlib: the companion of AsymGRPO (arXiv 2604.04894). What next?

  asymlib run asymgrpo --steps 60                         one training run, about half a minute
  asymlib compare grpo asymgrpo                           how far two methods, or two runs, lie apart
  asymlib batch notebooks/experiments/quick.yaml          every run of the quick profile
  asymlib build quick                                     every figure and table from these runs
  asymlib status notebooks/experiments/lab_small.yaml     what is done of a matrix
  asymlib verl config asymgrpo --policy Qwen/Qwen3-4B     the paper's models on 4 x H100: settings, hours, cost
  asymlib run --help                                      all options
  asymlib --install-completion                            the Tab key knows methods, policies, runs, files"""


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Train, batch and inspect experiments on asymmetric advantages."""
    if context.invoked_subcommand is None:
        print(NEXT_STEPS)


@app.command()
def run(
    method: MethodName = None,
    spec: SpecFile = None,
    policy: Policy = None,
    seed: Seed = None,
    steps: Steps = None,
    profile: Profile = None,
    set_: Set = None,
    results: Results = None,
    plain: Annotated[bool, typer.Option("--plain", help="No progress bar, for logs.")] = False,
) -> None:
    """Train one spec and print where its record is. A run that is done is not done again."""
    wanted = spec_of(spec, set_, method=method, policy=policy, seed=seed, steps=steps, profile=profile)
    folder = run_folder(wanted, results)
    changes = ", ".join(f"{k} {v} (not {getattr(METHODS[wanted.method], k)})" for k, v in wanted.method_changes.items())
    print(f"{METHODS[wanted.method].label}{' with ' + changes if changes else ''}: {wanted.policy} policy, seed {wanted.seed}")
    was_done = RunRecord(folder).is_done
    try:
        record = _train_plainly(wanted, results) if plain else _train_with_bar(wanted, results)
    except KeyboardInterrupt:
        at = f"stopped at step {len(RunRecord(folder).metrics)} of {wanted.steps}; "
        kept = any((folder / name).exists() for name in ("snapshot.pt", "checkpoints"))
        _stop(at + (f"its last snapshot is kept in {folder}" if kept else "no snapshot yet, so it will start anew"))
    _print_outcome(record, was_done)


def _stop(what: str) -> NoReturn:
    """The last words of an interrupted command."""
    console.print(f"{what}\nto go on: {shlex.join(['asymlib', *sys.argv[1:]])}", highlight=False, soft_wrap=True)
    raise typer.Exit(130)


def _train_plainly(spec: ExperimentSpec, results: Path | None) -> RunRecord:
    pace = Pace(spec.steps)

    def on_step(metrics: dict) -> None:
        stop_if_orphaned()
        pace.reached(metrics["step"])
        if metrics["step"] % 10 == 0 or metrics["step"] == spec.steps:
            values = f"reward {metrics['reward']:.3f} entropy {metrics['entropy']:.3f}"
            print(f"step {metrics['step']}/{spec.steps} {values}, {pace}", flush=True)

    return run_experiment(spec, results, on_step)


def _train_with_bar(spec: ExperimentSpec, results: Path | None) -> RunRecord:
    with Bar(console, spec.variant, spec.steps, "warming up") as bar:

        def on_step(metrics: dict) -> None:
            bar.reached(metrics["step"], f"reward {metrics['reward']:.2f} entropy {metrics['entropy']:.2f}")

        return run_experiment(spec, results, on_step)


def _print_outcome(record: RunRecord, was_done: bool) -> None:
    from .statistics import avg_at_k  # scipy is slow to import, and the Tab key should not wait for it

    spec, run_id = record.spec, record.folder.name
    print(f"run {run_id} ({spec.variant}, seed {spec.seed}): {record.collapse or ('was done before' if was_done else 'done')}")
    metrics = record.metrics
    if len(metrics):
        first, last = metrics.iloc[0], metrics.iloc[-1]
        print(f"steps 1 to {last.step:.0f}: reward {first.reward:.3f} to {last.reward:.3f}", end=", ")
        print(f"entropy {first.entropy:.3f} to {last.entropy:.3f} nats per token")
    best = record.evaluation.query("checkpoint == 'best'")
    scores = [f"{row.benchmark} {avg_at_k(row.correct, row.samples):.3f}" for row in best.itertuples()]
    if scores:
        print(f"Avg@k of the best checkpoint (step {best.step.iloc[0]}): {', '.join(scores)}")
    print(f"record: {record.folder}\nnext: asymlib compare {run_id} OTHER, where OTHER is another run's id")


@app.command()
def batch(
    matrix: Matrix,
    jobs: Jobs = None,
    results: Results = None,
    notebook: Annotated[Path | None, typer.Option(help="The notebook that papermill runs; 10_train.ipynb otherwise.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Spread the runs over this Ray cluster; auto: this machine's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Train all as one program on this torch device, such as cuda; executes no notebook.")
    ] = None,
) -> None:
    """Train every spec of a matrix that is not done; exit status 1 if any failed."""
    specs = load_matrix(matrix)
    if device and (jobs or notebook or ray_address):
        raise ValueError(f"--device {device}: trains in this process; it goes with none of --jobs, --notebook, --ray-address")
    notebook = notebook or _notebooks() / "10_train.ipynb"
    if not device and not notebook.is_file():
        raise ValueError(f"--notebook {notebook}: no such file")
    ended = 0
    try:
        if device:
            return _batch_on_device(specs, device, results)
        with Bar(console, matrix.name, len(specs)) as bar:
            bar.reached(0)

            def report(spec: ExperimentSpec, state: str, message: str) -> None:
                nonlocal ended
                ended += 1
                bar.console.print(f"{spec.run_id} {spec.variant} {spec.policy} seed {spec.seed}: {state} {message}".rstrip())
                bar.reached(ended, was_there=message == "was there")

            failures = run_batch(specs, notebook.resolve(), results, jobs, report, ray_address)
    except KeyboardInterrupt:
        states = [state_of(spec, results) for spec in specs]
        done, cut = states.count("done") + states.count("collapsed"), states.count("cut off")
        _stop(f"stopped; {done} of {len(specs)} runs are done and kept, {cut} were cut off and go on from their last snapshot")
    print(f"{len(specs) - len(failures)} of {len(specs)} runs done, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


def _batch_on_device(specs: list[ExperimentSpec], device: str, results: Path | None) -> None:
    check_stackable(specs, device)
    with Bar(console, f"{len(specs)} runs on {device}, steps", max(spec.steps for spec in specs)) as bar:
        run_stacked(specs, device, results, lambda metrics: bar.reached(metrics["step"]))
    states = [state_of(spec, results) for spec in specs]
    print(f"{states.count('done')} of {len(specs)} runs done, {states.count('collapsed')} collapsed")


def _notebooks() -> Path:
    """The nearest notebooks/ folder upwards."""
    here = Path.cwd()
    return next((p / "notebooks" for p in (here, *here.parents) if (p / "notebooks").is_dir()), Path("notebooks"))


@app.command()
def status(matrix: Matrix, results: Results = None) -> None:
    """What of a matrix is done, collapsed, running, failed, cut off or left, and the time left on this machine."""
    specs = load_matrix(matrix)
    root = results or results_root()
    states = {spec.run_id: state_of(spec, root) for spec in specs}
    table = Table("variant", "policy", "seeds by state", box=None)
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for spec in specs:
        rows.setdefault((spec.variant, spec.policy), {}).setdefault(states[spec.run_id], []).append(str(spec.seed))
    for (variant, policy), seeds in rows.items():
        table.add_row(variant, policy, "; ".join(f"{state}: {' '.join(s)}" for state, s in seeds.items()))
    console.print(table)
    counts = {state: list(states.values()).count(state) for state in dict.fromkeys(states.values())}
    print(
        ", ".join(f"{count} {state}" for state, count in counts.items())
        + f" of {len(specs)}; "
        + _time_left(specs, states, root)
    )


def _time_left(specs: list[ExperimentSpec], states: dict[str, str], root: Path) -> str:
    """From the wall time a step of the done runs of the same policy."""

    def seconds_per_step(spec: ExperimentSpec) -> float:
        record = RunRecord(root / spec.profile / "runs" / spec.run_id)
        return record.provenance["wall_seconds"] / spec.steps

    done: dict[str, list[float]] = {}
    for spec in specs:
        if states[spec.run_id] == "done":
            done.setdefault(spec.policy, []).append(seconds_per_step(spec))
    left = [spec for spec in specs if states[spec.run_id] not in ("done", "collapsed")]
    if not left:
        return "nothing left"
    if any(spec.policy not in done for spec in left):
        return "time left: not known before one run of each policy is done"
    seconds = sum(spec.steps * sum(done[spec.policy]) / len(done[spec.policy]) for spec in left) / default_jobs(left)
    return f"about {clock(seconds)} left, {default_jobs(left)} at once"


@app.command()
def build(
    profile: Annotated[str, typer.Argument(help="Whose records to draw: quick or lab.", autocompletion=one_of(*PROFILES))],
    jobs: Jobs = None,
    results: Results = None,
    notebooks: Annotated[Path | None, typer.Option(help="The numbered notebooks; the nearest notebooks/ otherwise.")] = None,
) -> None:
    """Execute the notebooks on a profile's records: figures, tables, rendered notebooks; exit status 1 if any failed."""
    refuse_unknown("profile", [profile], PROFILES)
    root = results or results_root()
    if not (root / profile / "runs").is_dir():
        raise ValueError(f"profile={profile!r}: {root / profile / 'runs'} does not exist; run a batch of that profile first")
    sources = notebooks_of(profile, notebooks or _notebooks())
    ended = 0
    try:
        with Bar(console, f"build {profile}", len(sources)) as bar:
            bar.reached(0)

            def report(name: str, message: str) -> None:
                nonlocal ended
                ended += 1
                bar.console.print(f"{name}: {message or 'built'}", markup=False, highlight=False)
                bar.reached(ended)

            failures = build_notebooks(profile, sources, root, jobs, report)
    except KeyboardInterrupt:
        _stop(f"stopped; {ended} of {len(sources)} notebooks are built and kept, all are built again")
    for what in ("figures", "tables", "notebooks"):
        print(f"{what}: {root / profile / what}")
    if failures:
        raise typer.Exit(1)


@app.command()
def compare(
    a: RunName,
    b: RunName,
    policy: Policy = None,
    profile: Annotated[str, typer.Option(help="Where to look for variants.", autocompletion=one_of(*PROFILES))] = "lab",
    results: Results = None,
    as_json: Annotated[bool, typer.Option("--json", help="The tables as JSON.")] = False,
) -> None:
    """What differs between two runs or variants: settings, and numbers with 95% intervals of a - b."""
    from .compare import compare as compare_runs
    from .compare import find_runs

    fields = {"profile": profile} | ({"policy": policy} if policy else {})
    found = compare_runs(*(find_runs(text, results or results_root(), **fields) for text in (a, b)))
    if as_json:
        tables = {name: json.loads(getattr(found, name).to_json(orient="records")) for name in ("specs", "measures")}
        print(json.dumps(found._asdict() | tables, indent=1))
        return
    settings = Table("setting", "a", "b", box=None)
    for row in found.specs.itertuples():
        settings.add_row(row.field, str(row.a), str(row.b))
    numbers = Table(
        "measure", *(Column(name, justify="right") for name in ("a", "b", "a - b", "95% interval", found.paired_over)), box=None
    )
    for row in found.measures.itertuples():
        known = row.low == row.low
        interval = f"{row.low:+.3f} to {row.high:+.3f}" if known else "-"
        clear = "bold" if known and (row.low > 0 or row.high < 0) else None
        numbers.add_row(
            row.measure, f"{row.a:.3f}", f"{row.b:.3f}", f"{row.difference:+.3f}", interval, str(row.n), style=clear
        )
    print(f"a: {found.name_a}\nb: {found.name_b}\n")
    console.print(settings if len(found.specs) else "the same settings", "", numbers, "")
    scope = (
        "of these two checkpoints, not of other seeds"
        if found.paired_over == "problems"
        else f"{len(found.measures)} not corrected for their number"
    )
    print("\n".join([f"intervals: paired over {found.paired_over}, {scope}; bold where 0 lies outside", *found.notes]))


@app.command()
def export(
    policy: Annotated[str, typer.Argument(help="small or base.")],
    folder: Annotated[Path, typer.Argument(help="The new Hugging Face folder.")],
    warmup_seed: Annotated[int, typer.Option(min=0)] = 0,
    results: Results = None,
) -> None:
    """Write a warm lab policy and the number walk as transformers, verl and vLLM load them (profile cpu trains it)."""
    refuse_unknown("lab policy", [policy], LAB_POLICIES)
    from .export import export_policy

    print(export_policy(policy, warmup_seed, results or results_root(), folder))


@app.command()
def doctor(
    for_: Annotated[str, typer.Option("--for", help=f"What the machine is to run: {', '.join(ENGINES)}.")] = "lab",
    gpus: Annotated[int, typer.Option(min=0, help="GPUs that a run shall use.")] = 4,
    policy: Annotated[str, typer.Option(help="The largest policy to train.")] = "Qwen/Qwen3-4B",
    results: Results = None,
) -> None:
    """What this machine lacks, and what to do about it; exit status 1 if anything that is needed is missing."""
    refuse_unknown("--for", [for_], ENGINES)
    findings = examine(for_, results or results_root(), gpus, (policy,))
    print("\n".join(map(str, findings)))
    if any(finding.missing for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """The console script: errors of the caller as one line on standard error, exit status 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: what was started is ended
    try:
        status_ = app(standalone_mode=False)
    except UsageError as error:
        _refuse(error.format_message())
    except typer.Abort:
        sys.exit(130)
    except (NotADirectoryError, PermissionError) as error:
        _refuse(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        _refuse(str(error))
    else:
        sys.exit(status_ if isinstance(status_, int) else 0)


def _refuse(message: str) -> None:
    print("asymlib: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
