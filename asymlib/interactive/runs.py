"""The run browser: the committed curves of a profile, by method, seed and metric."""

from __future__ import annotations

import contextlib
import io
from math import ceil
from pathlib import Path

import matplotlib.markers
import matplotlib.path
import pandas as pd
from scipy import stats

from ..analysis.looks import in_order, label, look, policy_label
from ..analysis.panels import seed_curves
from ..analysis.selection import load_comparable, policies_in
from ..analysis.statistics import CONFIDENCE
from ..runs.records import gather
from .fragment import Fragment, fragment

POINTS = 60  # a curve's at most: all of a profile's stay below 2 MB
METRICS = {  # column -> what it is, unit, factor
    "val_acc": ("validation accuracy, mean of five sets", "%", 100),
    "entropy": ("policy entropy", "nats per token", 1),
    "reward": ("training reward", "% right", 100),
    "none_solved": ("groups with no right rollout", "%", 100),
    "all_solved": ("groups with all rollouts right", "%", 100),
    "log_prob_increment_pos": ("log-prob increment of right rollouts", "nats per rollout", 1),
    "response_length": ("response length", "tokens", 1),
    "clip_fraction": ("clipped tokens", "%", 100),
}
DASHES = {"-": "", "--": "6 3", "-.": "7 3 1.5 3", ":": "1.5 3"}


def data(profile: str = "lab", results: Path | str | None = None) -> dict:
    """What the page needs: every run's curves, smoothed by EMA 0.7, thinned to at most 60 points, at four digits.

    Reads `load_comparable`'s runs and hands on what it left out; variants that share a look with others are left out too.
    Raises NothingToDraw if the profile has no run.
    """
    with contextlib.redirect_stdout(io.StringIO()) as left_out:
        found = load_comparable(profile, results)
        alike = found.variant.groupby(found.variant.map(look)).transform("nunique") > 1
        if alike.any():
            print(f"left out, drawn alike: {alike.sum()} of {len(found)} runs: {', '.join(sorted(set(found.variant[alike])))}")
        found = found[~alike]
        policies = policies_in(found)
    metrics = gather(found, "metrics")
    benchmarks = sorted(c for c in metrics.columns if c.startswith("val_acc/"))
    columns = {c: m for c, m in METRICS.items() if c in metrics}
    columns |= {c: (f"validation accuracy, {c.removeprefix('val_acc/')}", "%", 100) for c in benchmarks}
    steps, runs = {}, {}
    for (policy, variant), rows in metrics.groupby(["policy", "variant"], sort=False):
        for column, (_, _, scale) in columns.items():
            if rows[column].isna().all():
                continue
            curves = _thinned(scale * seed_curves(rows, column))
            steps.setdefault(policy, {})[column] = curves.index.tolist()
            for seed, values in curves.items():
                run = runs.setdefault(
                    (policy, variant, seed), {"policy": policy, "variant": variant, "seed": seed, "curves": {}}
                )
                run["curves"][column] = [None if pd.isna(v) else float(f"{v:.4g}") for v in values]
    most_seeds = found.groupby(["policy", "variant"]).size().max()
    return {
        "metrics": [{"name": name, "label": text, "unit": unit} for name, (text, unit, _) in columns.items()],
        "policies": [{"name": p, "label": policy_label(p)} for p in policies],
        "variants": [_variant(name) for name in in_order(found.variant)],
        "quantiles": [None, None, *(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) for n in range(2, most_seeds + 1))],  # by seeds
        "steps": steps,
        "runs": list(runs.values()),
        "left_out": left_out.getvalue().strip().splitlines(),
    }


def _thinned(curves: pd.DataFrame) -> pd.DataFrame:
    """Every n-th row, the last one always among them."""
    every = ceil(len(curves) / POINTS)
    return curves.iloc[(len(curves) - 1) % every :: every]


def _variant(name: str) -> dict:
    color, line, marker = look(name)
    return {
        "name": name,
        "label": label(name),
        "color": color,
        "dash": DASHES.get(line) if isinstance(line, str) else " ".join(str(x) for x in line[1]),
        "marker": _marker(marker),
    }


def _marker(name: str) -> str:
    """matplotlib's marker as the `d` of an SVG path, about 9 px wide."""
    style = matplotlib.markers.MarkerStyle(name)
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = []
    for points, code in style.get_path().transformed(style.get_transform()).iter_segments():
        numbers = () if code == matplotlib.path.Path.CLOSEPOLY else points * ([9, -9] * (len(points) // 2))
        parts.append(letters[code] + " ".join(f"{x:.2f}" for x in numbers))
    return "".join(parts)


def show(profile: str = "lab", results: Path | str | None = None) -> Fragment:
    """The run browser, for a notebook's output or a page."""
    return fragment("runs", data(profile, results))
