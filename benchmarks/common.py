"""What the benchmarks share: interleaved timing, and a JSON that says which code and machine it was."""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from asymlib.runs.provenance import collect_provenance

RESULTS = Path(__file__).parent / "results"
BUSY = 0.5  # load average above which the machine counts as shared


def interleaved(parts: dict[str, Callable[[], object]], repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """CPU seconds of every part in every repeat, the parts taking turns so that a slow moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(repeats + warm_up):
        for name, part in parts.items():
            started = time.process_time()
            part()
            if repeat >= warm_up:
                seconds[name].append(time.process_time() - started)
    return seconds


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the repeats of their paired ratios."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def conditions(repeats: int, clock: str = "CPU seconds of one thread") -> dict:
    load = os.getloadavg()[0]
    busy = "other work ran on the machine" if load > BUSY else "nothing else ran on the machine"
    return {
        "clock": f"{clock}, medians of {repeats} interleaved repeats; {busy} (load average {load:.1f})",
        "provenance": collect_provenance(),
    }


def report(name: str, title: str, rows: list[dict], conditions: dict) -> None:
    """Print the rows and write them to results/<name>.json."""
    table = Table(*rows[0], title=title, box=None)
    for row in rows:
        table.add_row(*(f"{value:,.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table, f"[dim]{conditions['clock']}[/dim]")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"rows": rows} | conditions, indent=1) + "\n")
