"""The commands that read records: compare two, replay the first steps of one, write some for TensorBoard.

scipy and torch are imported when a command runs: they are slow to import, and the Tab key should not wait for them.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ..runs.records import results_root
from ..support.messages import say
from .options import PROFILE, Policy, Results, RunName, folder_option, given
from .progress import console


def compare(
    a: RunName,
    b: RunName,
    policy: Policy = None,
    profile: Annotated[str | None, typer.Option(help="Where to look; everywhere otherwise.", autocompletion=PROFILE)] = None,
    results: Results = None,
    as_json: Annotated[bool, typer.Option("--json", help="The tables as JSON.")] = False,
) -> None:
    """What differs between two runs or variants: settings, and numbers with 95% intervals of a - b."""
    from ..analysis.compare import compare as compare_runs
    from ..analysis.compare import find_pair

    fields = {name: value for name, value in (("profile", profile), ("policy", policy)) if value is not None}
    for name, value in fields.items():
        given(f"--{name}", value)
    runs_a, runs_b, looked = find_pair(a, b, results or results_root(), **fields)
    found = compare_runs(runs_a, runs_b)
    if as_json:
        tables = {name: json.loads(getattr(found, name).to_json(orient="records")) for name in ("specs", "measures")}
        return say(json.dumps(found._asdict() | tables, indent=1))
    settings = Table("setting", "a", "b", box=None)
    for row in found.specs.astype(str).itertuples(index=False):
        settings.add_row(*row)
    titles = ("a", "b", "a - b", "95% interval", found.paired_over)
    numbers = Table("measure", *(Column(title, justify="right") for title in titles), box=None)
    for name, of_a, of_b, difference, low, high, n in found.measures.itertuples(index=False):
        interval = f"{low:+.3f} to {high:+.3f}" if low == low else "-"
        cells = (name, f"{of_a:.3f}", f"{of_b:.3f}", f"{difference:+.3f}", interval, str(n))
        numbers.add_row(*cells, style="bold" if low > 0 or high < 0 else None)
    say(f"a: {found.name_a}\nb: {found.name_b}\n")
    console.print(settings if len(found.specs) else "the same settings", "", numbers, "")
    alone = "of these two checkpoints, not of other seeds"
    scope = alone if found.paired_over == "problems" else f"{len(found.measures)} not corrected for their number"
    say("\n".join([f"intervals: paired over {found.paired_over}, {scope}; bold where 0 lies outside", *looked, *found.notes]))


def verify(
    run: RunName,
    steps: Annotated[int, typer.Option(min=1, help="How many steps to replay.")] = 20,
    results: Results = None,
) -> None:
    """Replay the first steps of a committed run and say how near it is; exit status 1 if it is not reproduced."""
    from ..execution.verify import verify as replay

    found = replay(run, results or results_root(), steps)
    table = Table("metric", Column("replay", justify="right"), Column(f"{found.seeds} other seeds", justify="right"), box=None)
    for row in found.differences.itertuples():
        table.add_row(row.metric, f"{row.replay:.1e}", f"{row.seeds:.1e}" if found.seeds else "-")
    spec = found.record.spec
    say(f"run {found.record.folder.name}: {spec.variant}, {spec.policy} policy, seed {spec.seed}, {found.steps} steps again")
    say("largest difference from the record, as a share of the metric's mean; of other seeds the median\n")
    console.print(table, "")
    say(f"weights at the start: {found.checkpoint}\nmachine: {found.machine}\n{found.verdict}")
    if not found.is_reproduced:
        raise typer.Exit(1)


def tensorboard(
    runs: Annotated[list[str], RunName.__metadata__[0]],
    to: Annotated[Path, folder_option("--to", "The folder that TensorBoard shall read.")] = Path("tensorboard"),
    results: Results = None,
) -> None:
    """Write runs' metrics for `tensorboard --logdir FOLDER`; a run is a folder below it, which must not exist."""
    from torch.utils.tensorboard import SummaryWriter

    from ..analysis.compare import find_runs

    found = [record for run in runs for records in find_runs(run, results or results_root()).values() for record in records]
    folders = {to / f"{r.spec.variant} seed {r.spec.seed} {r.folder.name}": r for r in found}
    for folder in folders:
        if folder.exists():
            raise ValueError(f"--to={str(to)!r}: {folder.name!r} is in it already; name another folder or remove that one")
    for folder, record in folders.items():
        partial = folder.with_name(f".{folder.name}.partial")  # the folder appears whole
        shutil.rmtree(partial, ignore_errors=True)
        with SummaryWriter(str(partial)) as writer:
            for name, values in record.metrics.set_index("step").items():
                for step, value in values.dropna().items():
                    writer.add_scalar(name, value, step)
        partial.replace(folder)
    say(f"{len(folders)} run(s) written; next: tensorboard --logdir {to}")
