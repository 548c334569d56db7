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
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from .spec import ExperimentSpec

COVARIANCE_STEPS = 40  # Eq. 14 uses the first 40 steps only
RECORD_FILES = ("spec.json", "provenance.json", "metrics.jsonl", "evaluation.json", "covariance.parquet")


def results_root() -> Path:
    """Where records go: $ASYMLIB_RESULTS, else `results/` of the nearest folder upwards that has one, else ./results."""
    if "ASYMLIB_RESULTS" in os.environ:
        return Path(os.environ["ASYMLIB_RESULTS"])
    here = Path.cwd()
    return next((p / "results" for p in (here, *here.parents) if (p / "results").is_dir()), here / "results")


def run_folder(spec: ExperimentSpec, results: Path | None = None) -> Path:
    return (results or results_root()) / spec.profile / "runs" / spec.run_id


def digest(path: Path) -> str:
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
            changed = [name for name in RECORD_FILES if digest(self.folder / name) != digests[name]]
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
