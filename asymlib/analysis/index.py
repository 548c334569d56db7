"""The index of the records: results/runs.csv, a row a run, and results/README.md, a row a variant. `make index` writes both."""

import os
import warnings
from pathlib import Path

import pandas as pd

from ..runs.provenance import name_of_code
from ..runs.records import load_runs, results_root
from ..runs.spec import PROFILES
from ..support.files import write_atomically
from .looks import in_order, label
from .measures import PASS_K, measure_run
from .selection import policies_in

WHAT = {
    "lab": "Table 1, figures and claims",
    "tuning": "settings tried on tuning seeds: equal tuning",
    "long": "four times as many steps",
    "controls": "groups masked: modulation or boundary",
    "decisive": "the second study",
    "rates": "other learning rates",
    "related": "published relatives",
    "schedule": "betas that follow the run",
    "temperatures": "pass@16 at eight temperatures",
    "clip": "many updates a step: the clip acts",
    "scale": "the larger policy",
    "countdown": "a second task",
    "h100": "the paper's models on GPUs",
    "cpu": "verl on a laptop",
}
HEAD = """# Records

Written by `asymlib build`, or by `make index` alone. [runs.csv](runs.csv) has every run but those of profile quick, which
everyone makes anew. A run is a folder `PROFILE/runs/ID/` with its spec, commit, machine, metrics and evaluation;
`load_runs("results/lab")` reads a profile's, `asymlib compare` compares them. The checkpoints that runs start from lie in
`warmup/`, but for the eight of profile scale (19 MB): a record has its checkpoint's sha256, and `asymlib verify` trains a
missing one again.

Below, means over seeds: accuracy (Avg@k of the best checkpoint, mean of the held-out sets) and pass@16 (of the last policy)
in %, entropy in nats per token over the whole run. A mean is no verdict: the tables of a profile have intervals.
"""


def index_of(results: Path) -> pd.DataFrame:
    """One row a finished run of every profile but quick, in the order of profiles, policies, variants and seeds.

    accuracy and pass@16 are shares, entropy is in nats per token; empty where a run's engine does not measure it.
    """
    rows = []
    for profile in [name for name in PROFILES if name != "quick" and _is_readable(results / name / "runs")]:
        runs = load_runs(results / profile / "runs")
        ranks = {"policy": policies_in(runs).index, "variant": in_order(runs.variant).index}
        order = runs.assign(**{name: runs[name].map(rank) for name, rank in ranks.items()})
        rows += [_row(run.run_id, run.record) for run in order.sort_values([*ranks, "seed"]).itertuples()]
    return pd.DataFrame(rows)


def _is_readable(folder: Path) -> bool:
    """Whether it is there; warns of one that may not be looked into."""
    try:
        return folder.is_dir() and any(True for _ in os.scandir(folder))
    except OSError as error:
        warnings.warn(f"{folder}: {error.strerror}; its runs are left out", stacklevel=3)
        return False


def _row(run_id: str, record) -> dict:
    spec, measured = record.spec, measure_run(record)
    method, _, changes = spec.variant.partition(" ")
    betas = {name: getattr(spec.resolved_method, name) for name in ("beta_pos", "beta_neg")}  # None of a curve without them
    return {
        "id": run_id, "profile": spec.profile, "method": method, "changes": changes, **betas, "policy": spec.policy,
        "seed": spec.seed, "warmup_seed": spec.warmup_seed, "steps": spec.steps, "accuracy": measured["accuracy"],
        f"pass@{PASS_K}": measured[f"pass@{PASS_K}"], "entropy": measured["entropy"],
        "collapsed": record.collapse or "", "commit": name_of_code(record.provenance),
    }  # fmt: skip


def page_of(runs: pd.DataFrame) -> str:
    """README.md of `index_of`'s rows."""
    parts = [HEAD]
    for (profile, policy, steps), rows in runs.groupby(["profile", "policy", "steps"], sort=False):
        shown = rows.groupby(rows.method + " " + rows.changes, sort=False)
        table = pd.DataFrame({"seeds": shown.seed.agg(lambda seeds: " ".join(map(str, seeds)))})
        for name, form in (("accuracy", "{:.1%}"), (f"pass@{PASS_K}", "{:.1%}"), ("entropy", "{:.3f}")):
            table[name] = [form.format(x).rstrip("%") if x == x else "" for x in shown[name].mean()]
        table.index = table.index.map(label).rename("method")
        parts.append(f"## {profile}: {WHAT.get(profile, profile)}; {Path(policy).name}, {steps} steps, {len(rows)} runs\n")
        parts.append(table.to_markdown(disable_numparse=True) + "\n")
    return "\n".join(parts)


def write_index(results: Path) -> None:
    """Write `results`/runs.csv and `results`/README.md, if there is a run to list."""
    runs = index_of(results)
    if len(runs):
        write_atomically(results / "runs.csv", runs.to_csv(index=False, float_format="%.4f").encode())
        write_atomically(results / "README.md", page_of(runs).encode())


if __name__ == "__main__":
    write_index(results_root())
