"""Writing one run's record while the run goes on; `records.py` says what lies in its folder."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ..support.files import digest, read_json, write_atomically, write_json, write_parquet
from .lines import Lines
from .provenance import collect_provenance, machine
from .records import RECORD_FILES
from .spec import ExperimentSpec

SNAPSHOT = "snapshot.pt"  # the sha256 of the rest; a line of JSON that says what it continues; the engine's state
OF_THE_END = ("failed.json", "done.json", "metrics.parquet")  # what an earlier attempt may have left of its end


def as_recorded(metrics: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """Floats keep 6 significant digits; None stands for 'no value'."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in metrics.items()}


def _cpu_seconds() -> float:
    """Of this process and of its children that ended; the workers of a Ray cluster are not among them."""
    return sum(os.times()[:4])


class RunWriter:
    """Writes one run's record. The caller holds the run's lock (see `running.run_experiment`)."""

    def __init__(self, spec: ExperimentSpec, folder: Path, on_step: Callable[[dict], None] = lambda metrics: None):
        self.spec, self.folder, self._on_step = spec, folder, on_step
        self._started, self._cpu_started = time.perf_counter(), _cpu_seconds()
        self._before = {"wall_seconds": 0.0, "cpu_seconds": 0.0}  # of the attempts that this one continues
        folder.mkdir(parents=True, exist_ok=True)
        for name in OF_THE_END:
            (folder / name).unlink(missing_ok=True)
        write_json(folder / "spec.json", spec.model_dump(mode="json"))
        earlier = self._earlier_attempts()
        self._lines = Lines(folder)
        self._provenance = collect_provenance() | {"earlier_attempts": earlier, "seed": spec.seed}
        self.note(method=spec.resolved_method.model_dump(mode="json"), started=datetime.now(UTC).isoformat(timespec="seconds"))

    def _earlier_attempts(self) -> list[dict]:
        """Start and code of the attempts that were cut off before this one; none if their provenance cannot be read."""
        try:
            last = read_json(self.folder / "provenance.json")
            return [*last["earlier_attempts"], {k: last[k] for k in ("started", "commit", "dirty", "diff_sha256")}]
        except (ValueError, TypeError, KeyError):
            return []

    def note(self, **facts: Any) -> None:
        """Put into provenance.json what the engine knows: `warmup={"name": ..., "sha256": ...}`."""
        self._provenance |= facts | {"machine": machine()}
        write_json(self.folder / "provenance.json", self._provenance)

    def log(self, metrics: dict[str, float | int | None]) -> None:
        """Append one step's line, whole."""
        line = as_recorded(metrics)
        self._lines.append(line)
        self._on_step(line)

    def keep(self, state: bytes) -> None:
        """Write a snapshot of the engine's state after the lines so far, for `resume`."""
        self._lines.sync()
        head = self._continued() | {"lines": self._lines.count, "lines_sha256": self._lines.sha256}
        content = json.dumps(head | self._seconds()).encode() + b"\n" + state
        write_atomically(self.folder / SNAPSHOT, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def resume(self) -> bytes | None:
        """The state of the last snapshot, and the lines that it follows kept; None if there is none.

        A snapshot that is damaged, or that follows other lines, another spec, method or other starting weights than this
        run's, is not continued: the run starts anew, warns, and says so in its provenance.
        """
        if not (self.folder / SNAPSHOT).exists():
            return None
        try:
            sha256, _, content = (self.folder / SNAPSHOT).read_bytes().partition(b"\n")
            whole = sha256.decode() == hashlib.sha256(content).hexdigest()
            first, _, state = content.partition(b"\n")
            head = json.loads(first)
            same = all(head[name] == value for name, value in self._continued().items())
            before = {name: float(head[name]) for name in self._before}
            if whole and same and self._lines.continue_after(head["lines"], head["lines_sha256"]):
                self._before = before
                return state
            reason = "of another spec, method or starting weights" if whole and not same else "damaged, or its lines are"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            reason = "damaged"
        self.start_anew(reason)
        return None

    def start_anew(self, reason: str) -> None:
        """Drop the lines so far; `reason` says what the snapshot is, and goes into the provenance."""
        self._lines, self._before = Lines(self.folder), dict.fromkeys(self._before, 0.0)
        self.note(started_anew=f"the snapshot of an earlier attempt is {reason}")
        warnings.warn(f"{self.folder / SNAPSHOT} is {reason}: the run starts anew", stacklevel=3)

    @property
    def steps(self) -> int:
        """How many steps' lines the record has."""
        return self._lines.count

    def _continued(self) -> dict[str, Any]:
        """What must be the same before and after a snapshot."""
        return {"run_id": self.spec.run_id} | {name: self._provenance.get(name) for name in ("method", "warmup")}

    def _seconds(self) -> dict[str, float]:
        """Of the work that is in the record, over all attempts."""
        here = {"wall_seconds": time.perf_counter() - self._started, "cpu_seconds": _cpu_seconds() - self._cpu_started}
        return {name: round(self._before[name] + seconds, 2) for name, seconds in here.items()}

    def finish(self, evaluation: list[dict], covariance: pd.DataFrame, collapse: str | None = None) -> None:
        """Write what is left and, last, done.json. `collapse` says in words why a run broke down.

        Raises RuntimeError where the lines are not those that were logged, or not one for each step of a run that did not
        collapse; the snapshot that led there is removed, so that the next attempt starts anew.
        """
        if self.steps > self.spec.steps or (self.steps < self.spec.steps and not collapse):
            (self.folder / SNAPSHOT).unlink(missing_ok=True)
            raise RuntimeError(f"{self._lines.path}: {self.steps} lines for {self.spec.steps} steps; run it again")
        write_parquet(self.folder / "metrics.parquet", pd.DataFrame(self._lines.rows()))
        lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in evaluation)  # one line a benchmark
        write_atomically(self.folder / "evaluation.json", f"[\n{lines}\n]\n".encode())
        write_parquet(self.folder / "covariance.parquet", covariance)
        self.note(**self._seconds())
        digests = {name: digest(self.folder / name) for name in RECORD_FILES}
        write_json(self.folder / "done.json", {"collapsed": collapse, "sha256": digests})
        for path in (self._lines.path, self.folder / SNAPSHOT):  # the record says what they said
            path.unlink(missing_ok=True)


def record_failure(folder: Path, error: Exception) -> None:
    """Leave the error in `failed.json`; the next attempt removes it."""
    write_json(folder / "failed.json", {"error": f"{type(error).__name__}: {error}"})
