"""`asymlib verify`: replay the first steps of a record."""

from typing import Annotated

import typer
from rich.table import Column, Table

from ..runs.records import results_root
from .options import Results, RunName
from .progress import console


def verify(
    run: RunName,
    steps: Annotated[int, typer.Option(min=1, help="How many steps to replay.")] = 20,
    results: Results = None,
) -> None:
    """Replay the first steps of a committed run and say how near it is; exit status 1 if it is not reproduced."""
    from ..execution.verify import verify as replay  # torch is slow to import, and the Tab key should not wait for it

    found = replay(run, results or results_root(), steps)
    table = Table("metric", Column("replay", justify="right"), Column(f"{found.seeds} other seeds", justify="right"), box=None)
    for row in found.differences.itertuples():
        table.add_row(row.metric, f"{row.replay:.1e}", f"{row.seeds:.1e}" if found.seeds else "-")
    spec = found.record.spec
    print(f"run {found.record.folder.name}: {spec.variant}, {spec.policy} policy, seed {spec.seed}, {found.steps} steps again")
    print("largest difference from the record, as a share of the metric's mean; of other seeds the median\n")
    console.print(table, "")
    print(f"weights at the start: {found.checkpoint}\nmachine: {found.machine}\n{found.verdict}")
    if not found.is_reproduced:
        raise typer.Exit(1)
