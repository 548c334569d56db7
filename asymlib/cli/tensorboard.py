"""`asymlib tensorboard`: the metrics of finished runs as TensorBoard's event files, written from their records."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..runs.records import RunRecord, results_root
from .options import Results, RunName


def tensorboard(
    runs: Annotated[list[str], RunName.__metadata__[0]],
    to: Annotated[Path, typer.Option(help="The folder that TensorBoard shall read.")] = Path("tensorboard"),
    results: Results = None,
) -> None:
    """Write runs' metrics for `tensorboard --logdir FOLDER`; a run is a folder below it, which must not exist."""
    from ..analysis.compare import find_runs  # scipy is slow to import, and the Tab key should not wait for it

    found = [record for run in runs for records in find_runs(run, results or results_root()).values() for record in records]
    folders = {to / f"{r.spec.variant} seed {r.spec.seed} {r.folder.name}": r for r in found}
    for folder in folders:
        if folder.exists():
            raise ValueError(f"--to={str(to)!r}: {folder.name!r} is in it already; name another folder or remove that one")
    for folder, record in folders.items():
        _write(record, folder)
    print(f"{len(folders)} run(s) written; next: tensorboard --logdir {to}")


def _write(record: RunRecord, folder: Path) -> None:
    """One point a metric and step; the folder appears whole."""
    from torch.utils.tensorboard import SummaryWriter

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with SummaryWriter(str(partial)) as writer:
        for name, values in record.metrics.set_index("step").items():
            for step, value in values.dropna().items():
                writer.add_scalar(name, value, step)
    partial.replace(folder)
