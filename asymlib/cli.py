"""`asymlib run | batch | status | build`: what the notebooks do, from a shell. Wrong input: one line, exit status 2."""

from __future__ import annotations

import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .batch import build as build_notebooks
from .batch import default_jobs, load_matrix, run_batch
from .doctor import ENGINES, examine
from .experiment import LAB_POLICIES, ExperimentSpec
from .options import MethodName, Policy, Profile, Results, Seed, Set, SpecFile, Steps, spec_of
from .records import RunRecord, results_root
from .running import run_experiment, state_of, stop_if_orphaned
from .validation import refuse_unknown
from .verl import data_commands
from .verl.commands import app as verl

UsageError = typer.BadParameter.__base__  # typer's own or click's, whichever this typer uses; it names neither in public

app = typer.Typer(add_completion=True, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(verl, name="verl")
app.add_typer(data_commands.data, name="data")
app.command()(data_commands.evaluate)
console = Console()

Jobs = Annotated[int | None, typer.Option(min=1, help="How many at once; as many as there are cores otherwise, one on verl.")]

NEXT_STEPS = """asymlib: the companion of AsymGRPO (arXiv 2604.04894). What next?

  asymlib run asymgrpo --steps 60                        one training run, about half a minute
  asymlib batch notebooks/experiments/quick.yaml         every run of the quick profile
  asymlib build quick                                    every figure and table from these runs
  asymlib status notebooks/experiments/lab.yaml          what is done of a matrix
  asymlib run --help                                     all options"""


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
    try:
        record = _train_plainly(wanted, results) if plain else _train_with_bar(wanted, results)
    except KeyboardInterrupt:
        console.print(
            f"stopped; what was done up to the last snapshot is kept, the same command goes on from it ({wanted.run_id})"
        )
        raise SystemExit(130) from None
    _print_outcome(record)


def _train_plainly(spec: ExperimentSpec, results: Path | None) -> RunRecord:
    def on_step(metrics: dict) -> None:
        stop_if_orphaned()
        if metrics["step"] % 10 == 0 or metrics["step"] == spec.steps:
            print(
                f"step {metrics['step']}/{spec.steps} reward {metrics['reward']:.3f} entropy {metrics['entropy']:.3f}",
                flush=True,
            )

    return run_experiment(spec, results, on_step)


def _train_with_bar(spec: ExperimentSpec, results: Path | None) -> RunRecord:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(spec.variant, total=spec.steps, values="warming up")

        def on_step(metrics: dict) -> None:
            values = f"reward {metrics['reward']:.2f} entropy {metrics['entropy']:.2f}"
            progress.update(bar, completed=metrics["step"], values=values)

        return run_experiment(spec, results, on_step)


def _print_outcome(record: RunRecord) -> None:
    best = record.evaluation.query("checkpoint == 'best'")
    parts = [f"{row.benchmark} {sum(row.correct) / len(row.correct) / row.samples:.3f}" for row in best.itertuples()]
    print(f"run {record.folder.name} ({record.spec.variant}, seed {record.spec.seed}): {record.collapse or 'done'}")
    print("Avg@k of the best checkpoint: " + ", ".join(parts))
    print(f"record: {record.folder}")


@app.command()
def batch(
    matrix: Annotated[Path, typer.Argument(help="A YAML matrix, see notebooks/experiments/.")],
    jobs: Jobs = None,
    results: Results = None,
    notebook: Annotated[Path, typer.Option(help="The notebook that papermill runs for each spec.")] = Path(
        "notebooks/10_train.ipynb"
    ),
) -> None:
    """Train every spec of a matrix that is not done; exit status 1 if any failed."""
    specs = load_matrix(matrix)
    if not notebook.is_file():
        raise ValueError(f"--notebook {notebook}: no such file")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            bar = progress.add_task(matrix.name, total=len(specs))

            def report(spec: ExperimentSpec, state: str, message: str) -> None:
                progress.console.print(
                    f"{spec.run_id} {spec.variant} {spec.policy} seed {spec.seed}: {state} {message}".rstrip()
                )
                progress.advance(bar)

            failures = run_batch(specs, notebook.resolve(), results, jobs, report)
    except KeyboardInterrupt:
        console.print("stopped; finished runs are kept, the same command goes on with the rest")
        raise SystemExit(130) from None
    print(f"{len(specs) - len(failures)} of {len(specs)} runs done, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


@app.command()
def status(
    matrix: Annotated[Path, typer.Argument(help="A YAML matrix, see notebooks/experiments/.")],
    results: Results = None,
) -> None:
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
    return f"about {timedelta(seconds=round(seconds))} left, {default_jobs(left)} at once"


@app.command()
def build(
    profile: Annotated[str, typer.Argument(help="Whose records to draw: quick or lab.")],
    jobs: Jobs = None,
    results: Results = None,
    notebooks: Annotated[Path, typer.Option(help="The folder of the numbered notebooks.")] = Path("notebooks"),
) -> None:
    """Execute the notebooks on a profile's records: figures, tables, rendered notebooks; exit status 1 if any failed."""
    root = results or results_root()
    if not (root / profile / "runs").is_dir():
        raise ValueError(f"profile={profile!r}: {root / profile / 'runs'} does not exist; run a batch of that profile first")

    def report(name: str, message: str) -> None:
        print(f"{name}: {message or 'built'}", flush=True)

    failures = build_notebooks(profile, notebooks, root, jobs, report)
    print(
        f"figures: {root / profile / 'figures'}\ntables: {root / profile / 'tables'}\nnotebooks: {root / profile / 'notebooks'}"
    )
    if failures:
        raise typer.Exit(1)


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
    except ValueError as error:
        _refuse(str(error))
    else:
        sys.exit(status_ if isinstance(status_, int) else 0)


def _refuse(message: str) -> None:
    print("asymlib: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
