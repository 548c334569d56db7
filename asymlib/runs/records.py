"""A run's folder, `results/<profile>/runs/<run_id>/`: written while the run goes on, loaded as pandas.

    spec.json           the ExperimentSpec
    provenance.json     commit, versions, machine, times, the method as it was resolved
    metrics.parquet     one row a step; while the run goes on metrics.jsonl, a line a step
    evaluation.json     per benchmark, how many of n samples were right, problem by problem
    covariance.parquet  step, accuracy, covariance of every group of the first 40 steps (Eq. 13)
    done.json           written last, by rename: sha256 of the others, and why the run collapsed if it did

A folder without a valid done.json is not a result; loaders skip it with a warning. `failed.json` holds the error of a run that
failed; the next attempt removes it.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ..methods import Method
from ..support.files import digest, named_folder, naming, read_json, read_parquet, results_folder, results_root
from ..support.messages import refuse_unknown, shown
from .lines import METRICS_LINES, read_lines
from .spec import PROFILES, ExperimentSpec

COVARIANCE_STEPS = 40  # Eq. 14 uses the first 40 steps only
SET_ASIDE = "set-aside"  # the folder of what was broken
RECORD_FILES = ("spec.json", "provenance.json", "metrics.parquet", "evaluation.json", "covariance.parquet")


def run_folder(spec: ExperimentSpec, results: Path | None = None) -> Path:
    """Raises TypeError for what is no spec."""
    if not isinstance(spec, ExperimentSpec):
        raise TypeError(f"spec={shown(spec)}: must be an ExperimentSpec, such as make_spec(method='grpo')")
    return (results or results_root()) / spec.profile / "runs" / spec.run_id


def place_aside(results: Path, path: Path, moment: datetime | None = None) -> Path:
    """Where something broken below `results` is moved to."""
    return results / SET_ASIDE / f"{moment or datetime.now():%Y-%m-%dT%H.%M.%S.%f}" / path.relative_to(results)


class Done(BaseModel):
    """done.json: why the run collapsed, or None, and the digest of each file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    collapsed: Annotated[str, Field(min_length=1)] | None
    sha256: dict[str, str]


class RunRecord:
    """A run's folder, read lazily."""

    def __init__(self, folder: Path | str):
        self.folder = named_folder(folder, "folder")

    @cached_property
    def spec(self) -> ExperimentSpec:
        return ExperimentSpec.model_validate_json((self.folder / "spec.json").read_bytes())

    @cached_property
    def fault(self) -> str | None:
        """Why the folder is not a result; None if it is one."""
        try:
            changed = [name for name in RECORD_FILES if digest(self.folder / name) != self._done.sha256.get(name)]
        except FileNotFoundError as error:
            return f"no {Path(error.filename).name}"
        except OSError as error:
            return f"{Path(error.filename).name}: {error.strerror}"
        except ValueError:
            return "done.json cannot be read"
        if changed:
            return f"{', '.join(changed)} changed after the run"
        try:
            spec, trained = self.spec, Method.model_validate(self.provenance["method"])
        except (ValueError, KeyError, TypeError):
            return "spec.json or provenance.json is not of this version"
        if not self._is_at_its_place:
            return f"its place is {spec.profile}/runs/{spec.run_id}"
        same = trained.settings == spec.resolved_method.settings
        return None if same else f"method {spec.method!r} is another today than the one that was trained"

    @property
    def can_go_on(self) -> bool:
        """Whether it only was cut off: it did not end, and has a spec whose place this is."""
        try:
            return not self.has_ended and self._is_at_its_place
        except (OSError, ValueError):
            return False

    @property
    def has_ended(self) -> bool:
        """Whether a run came to its end here, whatever became of the record: its lines are removed after done.json."""
        there = {name for name in ("done.json", "metrics.parquet", METRICS_LINES) if os.path.lexists(self.folder / name)}
        return "done.json" in there or there == {"metrics.parquet"}

    def set_aside(self, results: Path) -> Path:
        """Move the record's files to results/set-aside/, and return where; lock and checkpoints stay."""
        target = place_aside(results, self.folder)
        target.mkdir(parents=True)
        for name in (*RECORD_FILES, "done.json"):
            if os.path.lexists(self.folder / name):
                with naming(self.folder / name):
                    (self.folder / name).rename(target / name)
        return target

    @property
    def _is_at_its_place(self) -> bool:
        place = Path(os.path.abspath(self.folder))  # also of "." and ".."
        return place.parts[-3:] == (self.spec.profile, "runs", self.spec.run_id)

    @property
    def is_done(self) -> bool:
        return self.fault is None

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.folder / "provenance.json")

    @cached_property
    def collapse(self) -> str | None:
        """Why the run collapsed, or None."""
        return self._done.collapsed

    @cached_property
    def _done(self) -> Done:
        return Done.model_validate_json((self.folder / "done.json").read_bytes())

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a step; of a run still going, the whole lines so far."""
        table = self.folder / "metrics.parquet"
        return read_parquet(table) if table.exists() else pd.DataFrame(read_lines(self.folder))

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        """One row per benchmark: benchmark, checkpoint, step, temperature, samples, correct (a list over problems)."""
        columns = ["benchmark", "checkpoint", "step", "temperature", "samples", "correct"]
        return pd.DataFrame(read_json(self.folder / "evaluation.json"), columns=columns)

    @cached_property
    def covariance(self) -> pd.DataFrame:
        return read_parquet(self.folder / "covariance.parquet")


def profile_folder(profile: str, results: Path | str | None = None) -> Path:
    """results/<profile>. Raises ValueError for a profile that is none, and for results that are no folder or not there."""
    refuse_unknown("profile", [profile], PROFILES)
    root = results_folder(results)
    if results is not None and not root.is_dir():
        raise ValueError(f"results={shown(str(results))}: no such folder")
    return root / profile


def different_starts(records: Iterable[RunRecord]) -> list[str]:
    """At most one sentence: of which warm-ups the records name several sha256, or only some of them name one."""
    hashes: dict[tuple, set[str | None]] = {}
    names: dict[tuple, str] = {}
    for record in records:
        warmup, spec = record.provenance.get("warmup") or {}, record.spec
        start = spec.task, spec.policy, spec.warmup_seed
        hashes.setdefault(start, set()).add(warmup.get("sha256"))
        names |= {start: warmup["name"]} if warmup else {}
    mixed = sorted(names[start] for start, found in hashes.items() if len(found) > 1)
    said = "runs of one seed started from different weights, or do not all say from which, of the warm-ups"
    return [f"{said} {', '.join(mixed)}"] if mixed else []


def run_folders(folder: Path, report: Callable[[OSError], None] = lambda error: None) -> list[Path]:
    """What lies in a runs/ folder or looks like a run's, in any place below `folder` but those that `doctor --set-aside` made.

    report: takes the error of each folder that cannot be read, but those of runs, which are returned all the same.
    """
    found, here = set(), Path(os.path.abspath(folder))
    for path, inner, files in os.walk(folder, onerror=lambda error: _in_runs(error.filename) or report(error)):
        place = Path(path)
        if {"spec.json", "done.json"} & {*inner, *files}:
            found.add(place)
        if (place.name or here.name) == "runs":
            found |= {place / name for name in inner}
            for name in [name for name in files if not name.startswith(".")]:
                report(OSError(0, "no folder", str(place / name)))
        for name in {*PROFILES, "runs"} & {name for name in inner if (place / name).is_symlink()}:
            report(OSError(0, "a link, not followed", str(place / name)))
        inner[:] = [name for name in inner if name != SET_ASIDE]
    return sorted(found)


def _in_runs(path: str) -> bool:
    return Path(path).parent.name == "runs"


def load_runs(folder: Path | str) -> pd.DataFrame:
    """One row per finished run of all results, a profile, or its `runs/`: the spec's fields, variant, collapsed, record.

    Folders that are no results, or lie deeper than <profile>/runs/<run_id>, are skipped with a warning that names them.
    `record` is the RunRecord. Raises ValueError if there is no such folder.
    """
    if not named_folder(folder, "folder").is_dir():
        raise ValueError(f"folder={str(folder)!r}: no such folder")
    rows, skipped = {}, []
    for path in run_folders(folder, lambda error: skipped.append(f"{Path(error.filename).name} ({error.strerror})")):
        record = RunRecord(path)
        if len(path.relative_to(folder).parts) > 3:  # a rehearsal's, a backup's
            skipped.append(f"{path.name} (in {path.parent}, no profile's)")
        elif record.is_done and path.name not in rows:
            identity = {"run_id": path.name, "variant": record.spec.variant, "collapsed": record.collapse is not None}
            rows[path.name] = identity | record.spec.model_dump() | {"record": record}
        else:
            skipped.append(f"{path.name} ({record.fault or f'a second one, in {path.parent}'})")
    if skipped:
        warnings.warn(f"{len(skipped)} of {len(skipped) + len(rows)} run folders skipped: {', '.join(skipped)}", stacklevel=2)
    columns = ["run_id", "variant", "collapsed", *ExperimentSpec.model_fields, "record"]
    return pd.DataFrame(rows.values(), columns=columns)


def gather(runs: pd.DataFrame, part: str) -> pd.DataFrame:
    """The `part` ('metrics', 'evaluation' or 'covariance') of all runs, one under the other, with each run's identity."""
    names = ("run_id", "variant", "policy", "seed", "engine")
    frames = [getattr(run.record, part).assign(**{n: getattr(run, n) for n in names}) for run in runs.itertuples()]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
