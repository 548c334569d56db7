"""The run browser: the committed curves of every profile, by method, seed and metric."""

import colorsys
from collections import Counter
from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path

import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from scipy import stats

from ..analysis.looks import GOLDEN_ANGLE, in_order, label, look
from ..analysis.panels import seed_curves
from ..analysis.selection import APART, NothingToDraw, load_what_there_is, policies_in
from ..analysis.statistics import CONFIDENCE
from ..runs.records import gather, results_root
from ..runs.spec import PROFILES
from .fragment import Fragment, fragment

POINTS = 24  # a curve's at most
METRICS = {  # column -> what it is, unit, factor
    "val_acc": ("validation accuracy, mean of the sets", "%", 100),
    "entropy": ("policy entropy", "nats per token", 1),
    "reward": ("training reward", "% right", 100),
    "none_solved": ("groups with no right rollout", "%", 100),
    "all_solved": ("groups with all rollouts right", "%", 100),
    "log_prob_increment_pos": ("log-prob increment of right rollouts", "nats per rollout", 1),
    "response_length": ("response length", "tokens", 1),
    "clip_fraction": ("clipped tokens", "%", 100),
}
DASHES = {"-": "", "--": "6 3", "-.": "7 3 1.5 3", ":": "1.5 3"}


def data(profile: str | None = None, results: Path | str | None = None) -> dict:
    """What the page needs: every run's curves, smoothed by EMA 0.7, thinned to at most 24 points, at four digits.

    Reads the finished runs of the profile, or of every profile that has one, quick last: it is not committed. Collapsed runs
    are left out and named, as those are that it cannot read. Runs of one profile, policy and settings are a group. Raises
    NothingToDraw if there is no run.
    """
    root, groups, steps, runs, left_out = Path(results or results_root()), [], {}, [], []
    done = {path.parts[-4] for path in root.glob("*/runs/*/done.json")} or {"lab"}
    for name in [profile] if profile else sorted(done, key=lambda name: (name == "quick", PROFILES.index(name))):
        found, skipped = load_what_there_is(root / name / "runs")
        left_out += [f"{name}: {warning}" for warning in skipped]
        if found.empty:
            continue
        for run in found[found.collapsed].itertuples():
            left_out.append(f"{name}: left out, collapsed: {run.variant}, seed {run.seed}, learning rate {run.learning_rate}")
        for group, text, own in _groups(name, found[~found.collapsed]):
            groups.append({"name": group, "label": text})
            steps[group], its_runs = _curves(gather(own, "metrics"))
            runs += [{"group": group} | run for run in its_runs]
    if not runs:
        raise NothingToDraw(f"no finished run yet of {', '.join(sorted(done))} in {root}")
    columns = sorted({column for its in steps.values() for column in its}, key=lambda c: ([*METRICS, c].index(c), c))
    most_seeds = max(Counter((run["group"], run["variant"]) for run in runs).values())
    return {
        "metrics": [dict(zip(("name", "label", "unit"), (column, *_metric(column)), strict=False)) for column in columns],
        "groups": groups,
        "variants": _variants(run["variant"] for run in runs),
        "quantiles": [None, None, *(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) for n in range(2, most_seeds + 1))],  # by seeds
        "steps": steps,
        "runs": runs,
        "left_out": left_out,
    }


def _groups(profile: str, found: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Name, label and runs of each policy's runs of the same settings; the name says in which settings they differ."""
    for policy in policies_in(found):
        own = found[found.policy == policy]
        settings = own.drop(columns=APART).astype(str)
        settings = settings.loc[:, settings.nunique() > 1]
        told = settings.apply(lambda row: ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in row.items()), axis=1)
        for differing in told.unique() if settings.shape[1] else [""]:
            rows = own[told == differing] if differing else own
            more = differing and f", {differing}"
            yield f"{profile}/{policy}{more}", f"{profile}: {Path(policy).name}, {rows.steps.iloc[0]} steps{more}", rows


def _metric(column: str) -> tuple[str, str, int]:
    return METRICS.get(column) or (f"validation accuracy, {column.removeprefix('val_acc/')}", "%", 100)


def _curves(metrics: pd.DataFrame) -> tuple[dict[str, list[int]], list[dict]]:
    """Of one group: the steps of each column's points, and each run's variant, seed and curves."""
    steps, runs = {}, {}
    for variant, rows in metrics.groupby("variant", sort=False):
        for column in [c for c in rows if (c in METRICS or c.startswith("val_acc/")) and rows[c].notna().any()]:
            curves = _metric(column)[2] * seed_curves(rows, column)
            curves = curves.iloc[:: -ceil(len(curves) / POINTS)][::-1]  # the last step always among them
            steps[column] = curves.index.tolist()
            for seed, values in curves.items():
                run = runs.setdefault((variant, seed), {"variant": variant, "seed": seed, "curves": {}})
                run["curves"][column] = [None if pd.isna(v) else float(f"{v:.4g}") for v in values]
    return steps, list(runs.values())


def _variants(names: Iterable[str]) -> list[dict]:
    """Each with its look of the figures; of those that look the same there, all but the first get a hue of their own."""
    found, drawn = [], Counter()
    for name in in_order(names):
        color, line, marker = own = look(name)
        if drawn[own]:
            color = to_hex(colorsys.hls_to_rgb(drawn[own] * GOLDEN_ANGLE % 1, 0.38, 0.62))
        drawn[own] += 1
        dash = DASHES[line] if isinstance(line, str) else " ".join(str(x) for x in line[1])
        drawing = {"color": color, "dash": dash, "marker": _marker(marker)}
        found.append({"name": name, "label": label(name), "changed": " " in name} | drawing)
    return found


def _marker(name: str) -> str:
    """matplotlib's marker as the `d` of an SVG path, about 9 px wide."""
    style, letters = MarkerStyle(name), {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = style.get_path().transformed(style.get_transform().scale(9, -9)).iter_segments()
    return "".join(letters[code] + " ".join(f"{x:.2f}" for x in points if code != 79) for points, code in parts)


def show(profile: str | None = None, results: Path | str | None = None) -> Fragment:
    """The run browser, for a notebook's output or a page."""
    return fragment("runs", data(profile, results))
