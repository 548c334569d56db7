"""The panels that figures share: curves over steps, intervals in rows, letters and legends, and the table beside a figure."""

import string
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import offset_copy
from scipy import stats

from .figures import WIDTH, plt
from .looks import label, look, math, policy_label
from .measures import late, seeds_by_variant
from .selection import policies_in
from .statistics import CONFIDENCE, ema, mean_interval

STAR = 1.55  # a star's body is small beside other markers


def seed_curves(metrics: pd.DataFrame, column: str, window: int | None = None) -> pd.DataFrame:
    """One variant's column as steps x seeds: smoothed by EMA 0.7 or, with `window`, averaged over windows of steps."""
    wide = metrics.dropna(subset=column).pivot(index="step", columns="seed", values=column)
    if window:
        return wide.groupby((wide.index - 1) // window * window + (window + 1) / 2).mean()
    return wide.apply(ema)


def plot_curves(
    ax, metrics: pd.DataFrame, column: str, variants, *, scale=1.0, window=None, against: str | None = None, **style
) -> None:
    """Per variant the mean over seeds, from three seeds up its 95% Student-t band, every seed faint behind; x: step.

    metrics: `records.gather(runs, "metrics")` of one policy. variants: names; those without rows are not drawn. scale: 100 for
    percent. against: one of them to subtract, seed by seed; it is then not drawn. style: Line2D settings beside the look's.
    """
    rows = metrics.dropna(subset=column) if column in metrics else metrics.iloc[:0]
    curves = {v: scale * seed_curves(some, column, window) for v in variants if len(some := rows[rows.variant == v])}
    if against:
        base = curves.pop(against, None)
        curves = {} if base is None else {v: (wide - base).dropna(axis=1, how="all") for v, wide in curves.items()}
        ax.axhline(0, color="0.4", linewidth=0.8, zorder=0.9)
    for i, (variant, wide) in enumerate(curves.items()):
        color, line, marker = look(variant)
        count, mean = wide.notna().sum(axis=1), wide.mean(axis=1)
        every = 1 if window else (len(mean) * i // (6 * len(curves)), max(len(mean) // 6, 1))  # no two curves' markers meet
        shown = dict(color=color, linestyle=line, marker=marker, markevery=every, linewidth=1.5, label=math(label(variant)))
        shown |= dict(markersize=STAR * plt.rcParams["lines.markersize"]) if marker == "*" else {}
        ax.plot(mean.index, mean, **shown | style)
        faint = dict(color=color, rasterized=True)  # pixels inside a vector file: as paths they would be megabytes
        if wide.shape[1] > 1:
            ax.plot(wide.index, wide, alpha=0.22, linewidth=0.5, zorder=0.8, **faint)
        if wide.shape[1] > 2:  # of two seeds the interval, 13 standard errors, would only hide the curves
            half = wide.sem(axis=1) * stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(count - 1, 1))
            ax.fill_between(mean.index, mean - half, mean + half, alpha=0.1, linewidth=0, zorder=0.7, **faint)


def compare_curves(metrics: pd.DataFrame, policies, variants, against: dict[str, str], title: str):
    """Figs. 3 and 4: for each policy entropy, validation accuracy, and accuracy minus that of another variant seed by seed.

    against: the variants of the third column -> what is subtracted from each. title: that column's.
    """
    fig, axes = plt.subplots(len(policies), 3, figsize=(WIDTH, 1 + 2.8 * len(policies)), squeeze=False, layout="constrained")
    for row, policy in zip(axes, policies, strict=True):
        some = metrics[metrics.policy == policy]
        plot_curves(row[0], some, "entropy", variants)
        plot_curves(row[1], some, "val_acc", variants, scale=100)
        for baseline in dict.fromkeys(against.values()):
            compared = [variant for variant, other in against.items() if other == baseline]
            plot_curves(row[2], some, "val_acc", [*compared, baseline], scale=100, against=baseline)
        row[0].set(title="policy entropy", xlabel="step", ylabel=name_row(policy, "nats per token"))
        row[1].set(title="validation accuracy", xlabel="step", ylabel="%")
        row[2].set(title=title, xlabel="step", ylabel="percentage points")
    finish_panels(fig, axes, columns=4)
    return fig


def name_row(policy: str, unit: str) -> str:
    """The label at the left of a policy's row of panels."""
    return f"{policy_label(policy)}\n{unit}".replace(" (", "\n(")


class Row(NamedTuple):
    """One line of `plot_intervals`: its text, the variant whose look it has, its values (S,) over seeds, how it is marked."""

    text: str
    variant: str
    values: np.ndarray | pd.Series
    is_open: bool = False
    is_ringed: bool = False


def plot_intervals(ax, rows: list[Row], *, zero: bool = True, margin: float | None = None) -> None:
    """From top to bottom a line for each row: the mean over seeds with its 95% Student-t interval; below it every seed in grey.

    A row without a finite value stays empty; one seed has no interval. zero: a line at 0, for differences. margin: a grey band,
    inside which effects count as alike.
    """
    if margin:
        ax.axvspan(-margin, margin, color="0.92", linewidth=0, zorder=0)
    if zero:
        ax.axvline(0, color="0.4", linewidth=0.8, zorder=0.9)
    below = offset_copy(ax.transData, ax.figure, y=-5, units="points")  # where no interval hides a seed
    for y, row in enumerate(rows):
        if not len(values := pd.Series(row.values, dtype=float).dropna()):
            continue
        color, _, marker = look(row.variant)
        if not MarkerStyle(marker).is_filled():  # a mark of strokes vanishes on its interval; the row's text says whose it is
            marker = "o"
        mean, low, high, seeds = mean_interval(values)
        if seeds > 1:
            ax.plot(values, np.full(seeds, y), "o", color="0.65", markersize=2.5, zorder=1, transform=below)
            ax.update_datalim([(value, y) for value in values])  # which a shifted line does not do itself
        ax.plot([low, high], [y, y], color=color, linewidth=1.8, zorder=2)
        face, size = "white" if row.is_open else color, 6.5 * (STAR if marker == "*" else 1)
        ax.plot(mean, y, marker, color=color, markerfacecolor=face, markersize=size, zorder=3)
        if row.is_ringed:
            ax.plot(mean, y, "o", markersize=15, markerfacecolor="none", markeredgecolor="0.2")
    ax.set_yticks(range(len(rows)), [math(row.text) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def difference(measures: pd.DataFrame, measure: str, a: str, b: str) -> pd.Series:
    """a - b in one measure on the seeds that both have (index seed); `measures` are of one policy. Empty if one has no runs."""
    wide = seeds_by_variant(measures, measure).reindex(columns=[a, b])
    return (wide[a] - wide[b]).dropna()


def finish_panels(fig, axes, columns: int = 4) -> None:
    """Letter the panels (a), (b), ..., put one legend under the figure, and leave out what a neighbour's axis label says."""
    axes = np.atleast_2d(axes)
    handles = {}
    for letter, ax in zip(string.ascii_lowercase, (ax for ax in axes.flat if ax.get_visible()), strict=False):
        ax.set_title(f"({letter}) {ax.get_title()}", loc="left", fontsize=ax.title.get_fontsize())
        ax.set_title("")
        handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)} | handles
        if not ax.get_subplotspec().is_last_row():
            ax.set_xlabel("")
    for row in axes:
        for left, right in reversed(list(pairwise(row))):
            if left.get_ylabel() == right.get_ylabel() and left.get_shared_y_axes().joined(left, right):
                right.set_ylabel("")
    if handles:
        fig.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def summarize(metrics: pd.DataFrame, variants, quantities: dict[str, tuple[str, float]], against: str | None = None):
    """A table by policy and variant: each quantity's mean over the run, and ± half of its 95% interval over seeds.

    quantities: column -> (heading, scale); those that the metrics lack are left out. against: a variant, to give differences to
    it on the seeds that both have. Rounded to 3 decimals; with one seed ± is empty.
    """
    rows, quantities = [], {column: what for column, what in quantities.items() if column in metrics}
    for policy in policies_in(metrics):
        means = metrics[metrics.policy == policy].groupby(["variant", "seed"])[list(quantities)].mean()
        names = set(means.index.get_level_values("variant"))
        for variant in [v for v in variants if v in names and v != against and against in {None, *names}]:
            of_seed = (means.loc[variant] - (means.loc[against] if against else 0)).dropna(how="all")
            row = {"policy": policy, "method": label(variant), "seeds": len(of_seed)}
            for column, (heading, scale) in quantities.items():
                if len(values := scale * of_seed[column].dropna()):
                    mean, low, high, _ = mean_interval(values)
                    row |= {heading: mean, f"± {heading}": (high - low) / 2}
            rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["policy", "method", "seeds"]).round(3)


def summarize_curves(metrics: pd.DataFrame, variants, against: str | None = None) -> pd.DataFrame:
    """`summarize` of entropy (nats per token) and validation accuracy (%) over the run, and late; of differences late only."""
    late_means = {"entropy": ("late entropy", 1), "val_acc": ("late accuracy", 100)}
    last = summarize(late(metrics), variants, late_means, against)
    if against:
        return last
    means = {"entropy": ("entropy", 1), "val_acc": ("accuracy", 100)}
    return summarize(metrics, variants, means).merge(last, on=["policy", "method", "seeds"])
