"""The command line: what the notebooks do, from a shell. Wrong input: one line on standard error, exit status 2."""

import os
import re
import signal
import sys
from importlib import metadata
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from ..execution.running import PARENT, end_if_orphaned, run_experiment
from ..methods import CATALOGUE, TABLE_FIELDS, Method
from ..runs.records import RunRecord, results_root, run_folder
from ..runs.spec import LAB_POLICIES, TASK_DEFAULTS, ExperimentSpec
from ..support.files import named_folder
from ..support.messages import missing_package, refuse_unknown, say, sentence, shown
from ..verl.target import machine_of
from . import batch, data, records
from .doctor import PURPOSES, examine, examine_records, refuse_unready
from .options import Results, takes_spec
from .progress import Bar, Pace, console, stop
from .verl import app as verl

UsageError = typer.BadParameter.__base__  # typer's own or click's, whichever this typer uses; it names neither in public

app = typer.Typer(add_completion=True, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(verl, name="verl")
app.add_typer(data.data, name="data")
for command in (data.evaluate, records.compare, records.verify, records.tensorboard, batch.batch, batch.status, batch.build):
    app.command()(command)

NEXT_STEPS = files(__package__).joinpath("next_steps.txt").read_text().rstrip()


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False
) -> None:
    """Train, batch and inspect experiments on asymmetric advantages."""
    if version:
        say(f"asymlib {metadata.version('asymlib')}")
    elif context.invoked_subcommand is None:
        say(NEXT_STEPS)


@app.command()
def methods() -> None:
    """List the methods and their relatives: name, label, betas, what else makes the table, source."""
    rows = [[m.name, m.label, *_betas_and_others(m), re.split(r";| \(", m.source)[0]] for m in CATALOGUE.values()]
    say(tabulate(rows, ["name", "label", "beta_pos", "beta_neg", "table", "source"], tablefmt="plain", missingval="-"))


def _betas_and_others(method: Method) -> tuple[float | None, float | None, str | None]:
    """The two betas where they alone make the table; otherwise no betas, but the curve and its own coefficients."""
    others = method.model_dump(include=set(TABLE_FIELDS), exclude_defaults=True)
    if method.curve == "beta" and set(others) == {"beta_pos", "beta_neg"}:
        return method.beta_pos, method.beta_neg, None
    constant = ("beta_pos", "beta_neg") if method.beta_pos == method.beta_neg == 0 else ()
    name = "constant" if constant else method.curve
    return None, None, " ".join([name, *(f"{key}={value}" for key, value in others.items() if key not in constant)])


@app.command()
@takes_spec
def run(
    wanted: ExperimentSpec,
    results: Results = None,
    plain: Annotated[bool, typer.Option("--plain", help="No progress bar, for logs.")] = False,
) -> None:
    """Train one spec and print where its record is. A run that is done is not done again."""
    folder = run_folder(wanted, results)
    unchanged = CATALOGUE[wanted.method]
    changes = ", ".join(f"{k} {v} (not {getattr(unchanged, k)})" for k, v in wanted.method_changes.items())
    say(f"{unchanged.label}{' with ' + changes if changes else ''}: {wanted.policy} policy, seed {wanted.seed}")
    was_done = RunRecord(folder).is_done
    if wanted.engine == "verl" and not was_done and PARENT not in os.environ:  # else the parent has looked
        refuse_unready(wanted, results or results_root(), machine_of(wanted))
    end_if_orphaned()
    try:
        record = _train_plainly(wanted, results) if plain else _train_with_bar(wanted, results)
    except KeyboardInterrupt:
        at = f"stopped at step {len(RunRecord(folder).metrics)} of {wanted.steps}; "
        kept = any((folder / name).exists() for name in ("snapshot.pt", "checkpoints"))
        stop(at + (f"its last snapshot is kept in {folder}" if kept else "no snapshot yet, so it will start anew"))
    _print_outcome(record, was_done)


def _train_plainly(spec: ExperimentSpec, results: Path | None) -> RunRecord:
    pace = Pace(spec.steps)

    def on_step(metrics: dict) -> None:
        pace.reached(metrics["step"])
        if metrics["step"] % 10 == 0 or metrics["step"] == spec.steps:
            values = f"reward {metrics['reward']:.3f} entropy {metrics['entropy']:.3f}"
            say(f"step {metrics['step']}/{spec.steps} {values}, {pace}", flush=True)

    return run_experiment(spec, results, on_step)


def _train_with_bar(spec: ExperimentSpec, results: Path | None) -> RunRecord:
    with Bar(console, spec.variant, spec.steps, "warming up") as bar:

        def on_step(metrics: dict) -> None:
            bar.reached(metrics["step"], f"reward {metrics['reward']:.2f} entropy {metrics['entropy']:.2f}")

        return run_experiment(spec, results, on_step)


def _print_outcome(record: RunRecord, was_done: bool) -> None:
    from ..analysis.statistics import avg_at_k  # scipy is slow to import, and the Tab key should not wait for it

    spec, run_id = record.spec, record.folder.name
    say(f"run {run_id} ({spec.variant}, seed {spec.seed}): {record.collapse or ('was done before' if was_done else 'done')}")
    metrics = record.metrics
    if len(metrics):
        first, last = metrics.iloc[0], metrics.iloc[-1]
        say(f"steps 1 to {last.step:.0f}: reward {first.reward:.3f} to {last.reward:.3f}", end=", ")
        say(f"entropy {first.entropy:.3f} to {last.entropy:.3f} nats per token")
    best = record.evaluation.query("checkpoint == 'best'")
    scores = [f"{row.benchmark} {avg_at_k(row.correct, row.samples):.3f}" for row in best.itertuples()]
    if scores:
        say(f"Avg@k of the best checkpoint (step {best.step.iloc[0]}): {', '.join(scores)}")
    say(f"record: {record.folder}\nnext: asymlib compare {run_id} OTHER, where OTHER is another run's id")


@app.command()
def export(
    policy: Annotated[str, typer.Argument(help="small or base.")],
    folder: Annotated[
        Path,
        typer.Argument(parser=lambda text: named_folder(text, "FOLDER"), metavar="FOLDER", help="A new Hugging Face one."),
    ],
    warmup_seed: Annotated[int, typer.Option(min=0, help="Which warm-up checkpoint.")] = 0,
    task: Annotated[str, typer.Option(help=f"Of the lab: {', '.join(TASK_DEFAULTS)}.")] = "walk",
    results: Results = None,
) -> None:
    """Write a warm lab policy and its task as transformers, verl and vLLM load them (profile cpu trains it)."""
    refuse_unknown("lab policy", [policy], LAB_POLICIES)
    refuse_unknown("--task", [task], TASK_DEFAULTS)
    from ..lab.export import export_policy

    say(export_policy(policy, warmup_seed, results or results_root(), folder, task))


@app.command()
def doctor(
    for_: Annotated[str, typer.Option("--for", help=f"What the machine is to run: {', '.join(PURPOSES)}.")] = "lab",
    gpus: Annotated[int, typer.Option(min=0, help="GPUs that a run shall use.")] = 4,
    policy: Annotated[str, typer.Option(help="The largest policy to train.")] = "Qwen/Qwen3-4B",
    results: Results = None,
    records_: Annotated[bool, typer.Option("--records", help="Look at the records and warm-ups instead.")] = False,
    set_aside: Annotated[bool, typer.Option("--set-aside", help="With --records: move what is broken out of the way.")] = False,
) -> None:
    """What this machine lacks, and what to do about it; exit status 1 if anything that is needed is missing."""
    refuse_unknown("--for", [for_], PURPOSES)
    if set_aside and not records_:
        raise ValueError("--set-aside needs --records")
    root = results or results_root()
    findings = examine_records(root, set_aside) if records_ else examine(for_, root, gpus, (policy,))
    say("\n".join(map(str, findings)))
    if any(finding.missing for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """The console script, and the one place where an error becomes a sentence on standard error.

    Exit status 2: the caller's input; 1: what the machine refuses, such as a full disk. Other errors keep their traceback.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: what was started is ended
    try:
        status_ = app(standalone_mode=False)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `asymlib verl` alone; its message is the help
            say(error.format_message())
            sys.exit(2)
        _end_with(_usage(error), 2)
    except typer.Abort:
        sys.exit(130)
    except ModuleNotFoundError as error:
        _end_with(missing_package(error.name or str(error)), 2)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _end_with(f"{what}{error.strerror or error}", 1)
    except (ValueError, RecursionError) as error:
        _end_with(str(error), 2)
    else:
        sys.exit(status_ if isinstance(status_, int) else 0)


def _usage(error: UsageError) -> str:
    """typer's sentence, with the value that it leaves out where it names the option only."""
    message = re.sub("^Invalid value for .*: Value error, ", "", error.format_message())
    words = [word for argument in sys.argv[1:] for word in argument.split("=", argument.startswith("--"))]
    for option, value in pairwise(words):
        message = message.replace(f"Invalid value for '{option}': I", f"{option}={shown(value)}: i")
    return message


def _end_with(message: str, status: int) -> None:
    say(f"asymlib: {sentence(message)}", file=sys.stderr)
    sys.exit(status)
