"""A run's folder, `results/<profile>/runs/<run_id>/`: written while the run goes on, loaded as pandas.

    spec.json           the ExperimentSpec
    provenance.json     commit, versions, machine, times, the method as it was resolved
    metrics.jsonl       one line a step, appended whole and flushed
    evaluation.json     per benchmark, how many of n samples were right, problem by problem
    covariance.parquet  step, accuracy, covariance of every group of the first 40 steps (Eq. 13)
    done.json           written last, by rename: sha256 of the others, and why the run collapsed if it did

A folder without a valid done.json is not a result; loaders skip it with a warning. `failed.json` holds the error of a run that
failed; the next attempt removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from .experiment import ExperimentSpec

COVARIANCE_STEPS = 40  # Eq. 14 uses the first 40 steps only
RECORD_FILES = ("spec.json", "provenance.json", "metrics.jsonl", "evaluation.json", "covariance.parquet")
_PACKAGES = ("asymlib", "numpy", "pandas", "torch", "transformers", "verl", "vllm")


def results_root() -> Path:
    """Where records go: $ASYMLIB_RESULTS, else `results/` of the nearest folder upwards that has one, else ./results."""
    if "ASYMLIB_RESULTS" in os.environ:
        return Path(os.environ["ASYMLIB_RESULTS"])
    here = Path.cwd()
    return next((p / "results" for p in (here, *here.parents) if (p / "results").is_dir()), here / "results")


def run_folder(spec: ExperimentSpec, results: Path | None = None) -> Path:
    return (results or results_root()) / spec.profile / "runs" / spec.run_id


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: readers see the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def collect_provenance() -> dict[str, Any]:
    """The commit (and the hash of what differs from it inside asymlib/), package versions and machine.

    Raises RuntimeError when the commit cannot be told: a record must say what code made it.
    """
    code = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(code)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "diff", "HEAD", "--", "asymlib"], capture_output=True, check=True).stdout
        untracked = [*git, "ls-files", "--others", "--exclude-standard", "--", "asymlib"]
        for name in subprocess.run(untracked, capture_output=True, text=True, check=True).stdout.splitlines():
            changed += name.encode() + (code / name).read_bytes()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"provenance: {code} is not a git checkout with a commit, so the run cannot name its code"
        ) from error
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit,
        "dirty": bool(changed),
        "diff_sha256": hashlib.sha256(changed).hexdigest() if changed else None,
        "versions": {"python": platform.python_version()} | versions,
        "machine": {"system": f"{platform.system()} {platform.machine()}", "cpu": _cpu_name(), "cores": os.cpu_count()},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or an architecture that does not list it
        return platform.processor() or platform.machine()


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that ended; the workers of a Ray cluster are not among them."""
    return sum(os.times()[:4])


class RunWriter:
    """Writes one run's record. The caller holds the run's lock (see `running.run_experiment`).

    `about` goes into the provenance beside what is always there.
    """

    def __init__(
        self, spec: ExperimentSpec, folder: Path, on_step: Callable[[dict], None] = lambda metrics: None, **about: Any
    ):
        self.spec, self.folder, self._on_step = spec, folder, on_step
        self._started, self._cpu_started = time.perf_counter(), _cpu_seconds()
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "spec.json", spec.model_dump(mode="json"))
        earlier = self._earlier_attempts()
        self._provenance = (
            collect_provenance()
            | about
            | {
                "earlier_attempts": earlier,
                "seed": spec.seed,
                "method": spec.resolved_method.model_dump(mode="json"),
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        _write_json(folder / "provenance.json", self._provenance)

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
        _write_json(self.folder / "provenance.json", self._provenance)
        digests = {name: _sha256(self.folder / name) for name in RECORD_FILES}
        _write_json(self.folder / "done.json", {"collapsed": collapse, "sha256": digests})


def record_failure(folder: Path, error: Exception) -> None:
    """Leave the error in `failed.json`; the next attempt removes it."""
    _write_json(folder / "failed.json", {"error": f"{type(error).__name__}: {error}"})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class RunRecord:
    """A run's folder, read lazily."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    @cached_property
    def spec(self) -> ExperimentSpec:
        return ExperimentSpec.model_validate_json((self.folder / "spec.json").read_bytes())

    @cached_property
    def fault(self) -> str | None:
        """Why the folder is not a result; None if it is one."""
        try:
            done = json.loads((self.folder / "done.json").read_bytes())
            digests, _ = done["sha256"], done["collapsed"]
            changed = [name for name in RECORD_FILES if _sha256(self.folder / name) != digests[name]]
        except FileNotFoundError as error:
            return f"no {Path(error.filename).name}"
        except (ValueError, KeyError, TypeError):
            return "done.json cannot be read"
        if changed:
            return f"{', '.join(changed)} changed after the run"
        try:
            ExperimentSpec.model_validate_json((self.folder / "spec.json").read_bytes())
        except ValueError:
            return "spec.json is not of this version"
        return None

    @property
    def is_done(self) -> bool:
        return self.fault is None

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_bytes())

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return self._json("provenance.json")

    @cached_property
    def collapse(self) -> str | None:
        """Why the run collapsed, or None."""
        return self._json("done.json")["collapsed"]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a step; of a run still going, the whole lines so far."""
        path = self.folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a killed run may end mid-word
        return pd.DataFrame(json.loads(f"[{','.join(whole.splitlines())}]"))

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        """One row per benchmark: benchmark, checkpoint, step, temperature, samples, correct (a list over problems)."""
        return pd.DataFrame(
            self._json("evaluation.json"), columns=["benchmark", "checkpoint", "step", "temperature", "samples", "correct"]
        )

    @cached_property
    def covariance(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "covariance.parquet")


def load_runs(folder: Path | str) -> pd.DataFrame:
    """One row per finished run below `folder` (a profile's, or its `runs/`): the spec's fields, variant, collapsed, record.

    Folders that are not results are skipped with a warning that names them. `record` is the RunRecord.
    """
    rows, skipped = [], []
    for path in sorted(Path(folder).glob("**/spec.json")):
        record = RunRecord(path.parent)
        if record.is_done:
            identity = {"run_id": path.parent.name, "variant": record.spec.variant, "collapsed": record.collapse is not None}
            rows.append(identity | record.spec.model_dump() | {"record": record})
        else:
            skipped.append(f"{path.parent.name} ({record.fault})")
    if skipped:
        warnings.warn(f"{len(skipped)} of {len(skipped) + len(rows)} run folders skipped: {', '.join(skipped)}", stacklevel=2)
    columns = ["run_id", "variant", "collapsed", *ExperimentSpec.model_fields, "record"]
    return pd.DataFrame(rows, columns=columns)


def gather(runs: pd.DataFrame, part: str) -> pd.DataFrame:
    """The `part` ('metrics', 'evaluation' or 'covariance') of all runs, one under the other, with each run's identity."""
    frames = []
    for run in runs.itertuples():
        frame = getattr(run.record, part)
        identity = {name: getattr(run, name) for name in ("run_id", "variant", "policy", "seed", "engine")}
        frames.append(frame.assign(**identity))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
