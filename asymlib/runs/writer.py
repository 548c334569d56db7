"""Writing one run's record while the run goes on; `records.py` says what lies in its folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ..support.files import write_atomically, write_json
from .provenance import collect_provenance
from .records import RECORD_FILES, digest
from .spec import ExperimentSpec


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that ended; the workers of a Ray cluster are not among them."""
    return sum(os.times()[:4])


class RunWriter:
    """Writes one run's record. The caller holds the run's lock (see `running.run_experiment`)."""

    def __init__(self, spec: ExperimentSpec, folder: Path, on_step: Callable[[dict], None] = lambda metrics: None):
        self.spec, self.folder, self._on_step = spec, folder, on_step
        self._started, self._cpu_started = time.perf_counter(), _cpu_seconds()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "spec.json", spec.model_dump(mode="json"))
        earlier = self._earlier_attempts()
        self._provenance = collect_provenance() | {
            "earlier_attempts": earlier,
            "seed": spec.seed,
            "method": spec.resolved_method.model_dump(mode="json"),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / "provenance.json", self._provenance)

    def _earlier_attempts(self) -> list[dict]:
        """Start and code of the attempts that were cut off before this one; their seconds are not known."""
        try:
            last = json.loads((self.folder / "provenance.json").read_bytes())
        except FileNotFoundError:
            return []
        return [*last.get("earlier_attempts", []), {k: last[k] for k in ("started", "commit", "dirty", "diff_sha256")}]

    def log(self, metrics: dict[str, float | int | None]) -> None:
        """Append one step's line, whole, and flush it. Floats keep 6 significant digits; null stands for 'no value'."""
        rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in metrics.items()}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(rounded, allow_nan=False) + "\n")
        self._on_step(rounded)

    def truncate_metrics(self, last_step: int) -> None:
        """Keep the lines up to `last_step` only: what a cut-off run wrote after its snapshot is done again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        write_atomically(path, "".join(line + "\n" for line in lines[:last_step]).encode())

    def finish(self, evaluation: list[dict], covariance: pd.DataFrame, collapse: str | None = None) -> None:
        """Write what is left and, last, done.json. `collapse` says in words why a run broke down."""
        lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in evaluation)  # one line a benchmark
        write_atomically(self.folder / "evaluation.json", f"[\n{lines}\n]\n".encode())
        covariance.to_parquet(self.folder / "covariance.parquet", index=False)
        self._provenance |= {
            "wall_seconds": round(time.perf_counter() - self._started, 2),
            "cpu_seconds": round(_cpu_seconds() - self._cpu_started, 2),
        }
        write_json(self.folder / "provenance.json", self._provenance)
        digests = {name: digest(self.folder / name) for name in RECORD_FILES}
        write_json(self.folder / "done.json", {"collapsed": collapse, "sha256": digests})


def record_failure(folder: Path, error: Exception) -> None:
    """Leave the error in `failed.json`; the next attempt removes it."""
    write_json(folder / "failed.json", {"error": f"{type(error).__name__}: {error}"})
