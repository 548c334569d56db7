"""How near a replay on this machine comes to a committed record: the first steps again, beside what another seed changes."""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..analysis.compare import find_runs
from ..runs.provenance import machine
from ..runs.records import RunRecord
from ..runs.writer import as_recorded
from ..support.files import digest

TIMINGS = ("seconds_rollout", "seconds_update")
ROUNDING = 1e-3  # below it a difference is what sums in another order leave: 3e-5 over 20 steps was seen


class Verification(NamedTuple):
    """`differences`: metric, replay, seeds: the largest difference over the steps, as a share of the metric's mean size."""

    record: RunRecord
    steps: int
    differences: pd.DataFrame
    first_other_sample: int | None  # the first step in which another number of tokens was sampled
    checkpoint: str  # 'the recorded one', 'another one' or 'not recorded'
    machine: str  # 'the same', or what differs
    seeds: int  # how many other seeds `seeds` is the median of

    @property
    def is_reproduced(self) -> bool:
        largest = self.differences["replay"].max()
        return self.checkpoint != "another one" and self.first_other_sample is None and largest < ROUNDING

    @property
    def verdict(self) -> str:
        worst = self.differences.loc[self.differences["replay"].idxmax()]
        near = f"{worst.metric} differs by {worst.replay:.2g} of its mean"
        noise = f"; of another seed {worst.seeds:.2g}" if self.seeds else ""
        if self.checkpoint == "another one":
            return f"Not comparable: the run started from other weights than those in results/warmup ({near})."
        if self.first_other_sample == 1:
            return f"Not reproduced: the first step samples other tokens already ({near}{noise})."
        if self.first_other_sample:
            step = self.first_other_sample
            return f"Reproduced until step {step - 1}: step {step} samples other tokens, and after it {near}{noise}."
        if not worst.replay:
            return f"Reproduced: all metrics of the first {self.steps} steps are equal, to the six digits of a record."
        if self.is_reproduced:
            return f"Reproduced but for rounding: the same samples, and at most {near}{noise}."
        return f"Not reproduced: as many tokens at each step, but {near}{noise}."


def verify(run: str, results: Path, steps: int = 20) -> Verification:
    """Replay the first `steps` of the record that `run` names (an id, the start of one, or a folder).

    Nothing is written but, where it is missing, the warm-up checkpoint. Raises ValueError as `find_runs` does, for more than
    one run, and for a run of verl.
    """
    records = [record for found in find_runs(run, results).values() for record in found]
    if len(records) > 1:
        raise ValueError(f"{run!r} names {len(records)} runs, {records[0].folder.name} among them; give the id of one")
    [record] = records
    if record.spec.engine != "lab":
        raise ValueError(f"run {record.folder.name} is of verl; a replay of the first steps is for runs of the lab")
    root = record.folder.absolute().parents[2]
    recorded = record.metrics.head(steps)
    replayed, checkpoint = _replay(record, root, len(recorded))
    others = [other.metrics.head(len(recorded)) for other in _other_seeds(record)]
    noise = pd.DataFrame([_differences(recorded, other) for other in others]).median() if others else {}
    differences = pd.DataFrame(
        [(name, value, noise.get(name)) for name, value in _differences(recorded, replayed).items()],
        columns=["metric", "replay", "seeds"],
    )
    other_sample = recorded["step"][(recorded["tokens"] != replayed["tokens"]).to_numpy()]
    first = int(other_sample.iloc[0]) if len(other_sample) else None
    return Verification(record, len(recorded), differences, first, checkpoint, _machine(record), len(others))


def _replay(record: RunRecord, results: Path, steps: int) -> tuple[pd.DataFrame, str]:
    """The metrics of the first steps, made now, and whether they start from the weights that the run started from."""
    import torch

    from ..lab.trainer import new_state
    from ..lab.trainer import steps as train
    from ..lab.warmup import warm_checkpoint

    torch.set_num_threads(1)
    spec = record.spec
    weights = digest(warm_checkpoint(spec.policy, spec.warmup_seed, results, spec.task))
    stated = record.provenance.get("warmup", {}).get("sha256")
    checkpoint = "not recorded" if stated is None else "the recorded one" if stated == weights else "another one"
    replayed = islice(train(spec, new_state(spec, results)), steps)
    return pd.DataFrame(map(as_recorded, replayed)), checkpoint


def _other_seeds(record: RunRecord) -> list[RunRecord]:
    """The finished runs beside it that differ from it in the seed and its checkpoint only."""

    def settings(one: RunRecord) -> dict:
        return one.spec.model_dump(exclude={"seed", "warmup_seed"})

    beside = [RunRecord(path.parent) for path in sorted(record.folder.parent.glob("*/spec.json"))]
    alike = [other for other in beside if other.is_done and settings(other) == settings(record)]
    return [other for other in alike if other.spec.seed != record.spec.seed and len(other.metrics) >= 1]


def _differences(recorded: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Of each metric, its largest difference over the steps that both have, as a share of its mean size in the two."""
    found = {}
    for name in recorded.columns.drop(["step", *TIMINGS], errors="ignore"):
        a, b = (frame.set_index("step")[name].astype(float) for frame in (recorded, other) if name in frame)
        largest = (a - b).abs().max()
        if largest == largest:  # some steps have both
            found[name] = float(largest / ((a.abs() + b.abs()) / 2).mean()) if largest else 0.0
    return found


def _machine(record: RunRecord) -> str:
    then, now = record.provenance["machine"], machine()
    shared = [key for key in ("system", "cpu", "capability", "flags") if key in then and key in now]
    if differing := [f"{key} {then[key]!r}, here {now[key]!r}" for key in shared if then[key] != now[key]]:
        return "; ".join(differing)
    return "the same" if "capability" in then else "the same name; its capability was not recorded"
