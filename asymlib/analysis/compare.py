"""Two runs, or two variants over the seeds that both have: how their specs differ and how far their numbers lie apart.

Two single runs are paired over a benchmark's problems: the interval says how sure the difference of these two checkpoints is,
and nothing about other seeds. Two variants are paired over seeds.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..methods import CATALOGUE, CHANGEABLE
from ..runs.provenance import name_of_code
from ..runs.records import RunRecord, different_starts
from ..runs.spec import PROFILES, ExperimentSpec, make_spec
from ..support.messages import near_names
from ..support.yaml12 import assignment
from .measures import PASS_K, accuracy, late
from .statistics import avg_at_k, paired_interval, pass_at_k

COMPARED_METRICS = ("reward", "entropy", "val_acc")  # as mean over the run and over its last fifth
FIRST_PROFILES = ("lab", *(profile for profile in PROFILES if profile != "lab"))  # the committed science first
IDENTITY = {"profile", "seed", "warmup_seed"}  # what the runs of one variant may differ in


class Comparison(NamedTuple):
    """`specs`: field, a, b. `measures`: measure, a, b, difference (a - b), low, high, n problems or seeds (`paired_over`)."""

    name_a: str
    name_b: str
    specs: pd.DataFrame
    measures: pd.DataFrame
    paired_over: str
    notes: list[str]


def find_pair(a: str, b: str, results: Path, **fields) -> tuple[list[RunRecord], list[RunRecord], list[str]]:
    """The finished runs that `a` and `b` name, and notes on where they were found.

    Two variants are looked for in the first profile that has both, the lab's committed runs first; `fields` with a profile
    looks only there. Raises ValueError in one sentence as `find_runs` does.
    """
    found = [find_runs(text, results, **fields) for text in (a, b)]
    shared = [profile for profile in FIRST_PROFILES if all(profile in side for side in found)]
    chosen = [shared[0] if shared else next(iter(side)) for side in found]
    notes = []
    for text, side, profile in zip((a, b), found, chosen, strict=True):
        others = [f"{other} ({len(side[other])})" for other in side if other != profile]
        also = f"; also there: {', '.join(others)}, by --profile" if others else ""
        notes.append(f"{text}: {len(side[profile])} of {results / profile / 'runs'}{also}")
    return found[0][chosen[0]], found[1][chosen[1]], notes + _not_counted(results, set(chosen))


def _not_counted(results: Path, profiles: set[str]) -> list[str]:
    """A note for each profile with folders that are neither results nor runs that can go on."""
    notes = []
    for profile in sorted(profiles):
        records = [RunRecord(path) for path in sorted((results / profile / "runs").glob("*")) if path.is_dir()]
        if broken := [f"{record.folder.name} ({record.fault})" for record in records if record.fault and not record.can_go_on]:
            notes.append(f"{profile}: {len(broken)} broken, not counted: {', '.join(broken)}")
    return notes


def find_runs(text: str, results: Path, **fields) -> dict[str, list[RunRecord]]:
    """The finished runs that `text` names, by profile, the lab's first; one per seed.

    `text` is a run id or the start of one, a run's folder, or a method with changes and other spec fields, which `fields`
    complete: "reinforce beta_neg=0.75 seed=100". Fields that are not given are what most runs of the profile have; without a
    profile the small policy, groups of 8 and the walk. Raises ValueError in one sentence for anything
    unknown, ambiguous, collapsed or, of a single run, unfinished.
    """
    if os.path.isfile(Path(text) / "spec.json"):
        return _single(Path(text))
    folders = [path.parent for path in sorted(results.glob("*/runs/*/spec.json"))]
    if re.fullmatch("[0-9a-f]{1,12}", text):
        found = sorted({path.name for path in folders if path.name.startswith(text)})
        if len(found) > 1:
            raise ValueError(f"{text!r} is the start of {len(found)} run ids: {', '.join(found[:4])}; give more of it")
        if found:
            same = [path for path in folders if path.name == found[0]]  # a stray copy does not hide the record
            return _single(min(same, key=lambda path: not RunRecord(path).is_done))
    method, *settings = text.split() or [""]
    if method not in CATALOGUE:
        near = near_names(text, [*CATALOGUE, *(path.name for path in folders)])
        hint = near if near.startswith("did") else "give a run id, a run's folder or a variant such as grpo"
        raise ValueError(f"no run or method {text!r} below {results}: {hint}")
    return _of_variant(text, results, fields | dict(map(assignment, settings)) | {"method": method})


def _single(folder: Path) -> dict[str, list[RunRecord]]:
    record = _usable(RunRecord(folder))
    return {record.spec.profile: [record]}


def _of_variant(text: str, results: Path, wanted: dict) -> dict[str, list[RunRecord]]:
    spec = make_spec(**wanted)  # validates; fields that were not given match any value, but those of the next line
    given = {"method", "method_changes", *(name for name in wanted if name not in CHANGEABLE)}
    given |= set() if "profile" in wanted else {"policy", "group_size", "task"}  # a profile says which are meant
    found, places = {}, [spec.profile] if "profile" in wanted else FIRST_PROFILES
    for profile in places:
        records = [RunRecord(path.parent) for path in sorted((results / profile / "runs").glob("*/spec.json"))]
        records = [r for r in records if r.is_done and all(getattr(r.spec, f) == getattr(spec, f) for f in given)]
        if records:
            usual = _with_usual_settings(records)
            found[profile] = [record for record in usual if not record.collapse] or [_usable(usual[0])]
    if not found:
        where = f"{places[0]}/runs" if len(places) == 1 else f"*/runs, of the profiles {', '.join(places)}"
        of = f" of policy {spec.policy!r} and groups of {spec.group_size}" if "policy" in given else ""
        raise ValueError(f"{text}: no finished run{of} in {results}/{where}")
    return found


def _with_usual_settings(records: list[RunRecord]) -> list[RunRecord]:
    """Those with the settings that most of them have."""
    settings = [str(record.spec.model_dump(exclude=IDENTITY)) for record in records]
    usual = max(settings, key=settings.count)
    return [record for record, own in zip(records, settings, strict=True) if own == usual]


def _usable(record: RunRecord) -> RunRecord:
    if not record.is_done:
        state, what = ("not finished", "goes on with it") if record.can_go_on else ("no result", "sets it aside, starts anew")
        hint = f"asymlib run --spec {record.folder}/spec.json {what}"
        raise ValueError(f"run {record.folder.name} is {state} ({record.fault}): {hint}")
    if record.collapse:
        raise ValueError(f"run {record.folder.name} ({record.spec.variant}) collapsed: {record.collapse}; nothing to compare")
    return record


def measure_by_problem(record: RunRecord) -> dict[str, np.ndarray]:
    """Each measure as one number (1,), or problem by problem (B,): its mean is the run's value."""
    found = {}
    for name in COMPARED_METRICS:
        if name in record.metrics:
            found[f"{name}, mean of the run"] = np.array([record.metrics[name].mean()])
            found[f"{name}, last fifth"] = np.array([late(record.metrics)[name].mean()])
    sets = (record.evaluation.checkpoint == "best").sum()
    if sets:
        found[f"Avg@k, mean of {sets} sets"] = np.array([accuracy(record.evaluation)])
    for row in record.evaluation.itertuples():
        where = f"{row.benchmark} ({row.checkpoint}, T={row.temperature:g})"
        found[f"Avg@{row.samples} {where}"] = np.array([avg_at_k([c], row.samples) for c in row.correct])
        if row.samples >= PASS_K:
            found[f"pass@{PASS_K} {where}"] = np.array([pass_at_k([c], row.samples, PASS_K) for c in row.correct])
    return found


def compare(a: list[RunRecord], b: list[RunRecord]) -> Comparison:
    """Compare what `find_runs` found: over problems if there is one run of each, or one shared seed, else over seeds."""
    notes = []
    if len(a) > 1 or len(b) > 1:
        seeds_a, seeds_b = ({(r.spec.seed, r.spec.warmup_seed): r for r in side} for side in (a, b))  # one checkpoint, one seed
        shared = sorted(seeds_a.keys() & seeds_b.keys())
        if not shared:
            of_a, of_b = (sorted(seed for seed, _ in side) for side in (seeds_a, seeds_b))
            raise ValueError(f"the two share no seed ({of_a} and {of_b}): nothing to pair")
        alone = sorted(seed for seed, _ in seeds_a.keys() ^ seeds_b.keys())
        notes += [f"left out, only one of the two has them: seeds {' '.join(map(str, alone))}"] if alone else []
        a, b = [seeds_a[s] for s in shared], [seeds_b[s] for s in shared]
    codes = {name_of_code(record.provenance) for record in (*a, *b)}
    notes += [f"made by different code: {', '.join(sorted(codes))}"] if len(codes) > 1 else []
    notes += different_starts([*a, *b])
    measured_a, measured_b = ([measure_by_problem(record) for record in side] for side in (a, b))
    rows = []
    for name in [name for name in measured_a[0] if all(name in m for m in (*measured_a, *measured_b))]:
        by_unit_a, by_unit_b = (  # problems of one run each, else seeds
            pd.Series(side[0][name] if len(side) == 1 else [m[name].mean() for m in side]) for side in (measured_a, measured_b)
        )
        if len(by_unit_a) != len(by_unit_b):
            raise ValueError(f"{name}: {len(by_unit_a)} and {len(by_unit_b)} problems cannot be paired")
        rows.append((name, by_unit_a.mean(), by_unit_b.mean(), *paired_interval(by_unit_a, by_unit_b)))
    measures = pd.DataFrame(rows, columns=["measure", "a", "b", "difference", "low", "high", "n"])
    paired_over = "problems" if len(a) == 1 else "seeds"
    return Comparison(_name(a), _name(b), _spec_differences(a[0], b[0], paired_over), measures, paired_over, notes)


def _name(records: list[RunRecord]) -> str:
    first = records[0]
    if len(records) == 1:
        return f"{first.folder.name} ({first.spec.variant}, {first.spec.policy}, seed {first.spec.seed})"
    return f"{first.spec.variant} ({first.spec.policy}, seeds {' '.join(str(r.spec.seed) for r in records)})"


def _spec_differences(a: RunRecord, b: RunRecord, paired_over: str) -> pd.DataFrame:
    """Fields of the spec and settings of the resolved method that differ."""

    def settings(spec: ExperimentSpec) -> dict:
        left_out = {"method_changes"} | ({"seed", "warmup_seed"} if paired_over == "seeds" else set())
        return spec.model_dump(exclude=left_out) | spec.resolved_method.model_dump(exclude={"name", "label", "source"})

    of_a, of_b = settings(a.spec), settings(b.spec)
    rows = [(name, of_a[name], of_b[name]) for name in of_a if of_a[name] != of_b[name]]
    return pd.DataFrame(rows, columns=["field", "a", "b"])
