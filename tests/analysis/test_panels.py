"""Curves with bands and seeds, intervals in rows, and what figures share."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.markers import MarkerStyle

from asymlib import RELATED
from asymlib.analysis.figures import use_style
from asymlib.analysis.panels import (
    Row,
    compare_curves,
    difference,
    finish_panels,
    plot_curves,
    plot_intervals,
    summarize,
    summarize_curves,
)
from asymlib.analysis.statistics import ema, mean_interval


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def metrics(seeds=(0, 1, 2), variants=("grpo", "asymgrpo")) -> pd.DataFrame:
    rows = [
        {"variant": v, "seed": s, "step": t, "entropy": np.sin(t + s) + i}
        for (i, v), s, t in itertools.product(enumerate(variants), seeds, range(1, 21))
    ]
    return pd.DataFrame(rows)


def test_a_curve_is_the_mean_with_its_interval_and_every_seed():
    ax, data = plt.figure().subplots(), metrics()
    plot_curves(ax, data, "entropy", ["grpo"], scale=100)
    smooth = 100 * np.array([ema(rows.entropy) for _, rows in data[data.variant == "grpo"].groupby("seed")])
    mean, *seeds = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), smooth.mean(0))
    assert (mean.get_color(), mean.get_linestyle(), mean.get_marker()) == ("#0072B2", "-", "s")
    np.testing.assert_allclose([line.get_ydata() for line in seeds], smooth)
    assert all(line.get_alpha() < 0.5 and line.zorder < mean.zorder for line in seeds)
    band = ax.collections[0].get_paths()[0].vertices
    last = mean_interval(smooth[:, -1])
    at_last = band[band[:, 0] == 20][:, 1]
    assert (at_last.min(), at_last.max()) == (pytest.approx(last.low), pytest.approx(last.high))


@pytest.mark.parametrize("seeds, lines, bands", [((0,), 1, 0), ((0, 1), 3, 0), ((0, 1, 2), 4, 1)])
def test_what_few_seeds_show(seeds, lines, bands):
    ax = plt.figure().subplots()
    plot_curves(ax, metrics(seeds), "entropy", ["grpo", "reinforce"])  # reinforce has no rows
    assert (len(ax.lines), len(ax.collections)) == (lines, bands)


def test_panels_are_lettered_and_share_one_legend():
    for sharey, right_label in ((True, ""), (False, "nats")):  # an axis of its own keeps its unit
        fig, axes = plt.subplots(1, 2, sharey=sharey, layout="constrained")
        for ax, title in zip(axes, ("left", "right"), strict=True):
            plot_curves(ax, metrics(), "entropy", ["grpo", "asymgrpo"])
            ax.set(title=title, ylabel="nats")
        finish_panels(fig, axes)
        assert [ax.get_title(loc="left") for ax in axes] == ["(a) left", "(b) right"]
        assert [ax.get_ylabel() for ax in axes] == ["nats", right_label]
    assert [text.get_text() for text in fig.legends[0].texts] == ["GRPO", "AsymGRPO"]


def test_differences_of_curves_are_taken_seed_by_seed():
    ax, data = plt.figure().subplots(), metrics(variants=("grpo", "asymgrpo", "reinforce"))
    plot_curves(ax, data[~((data.seed == 2) & (data.variant == "asymgrpo"))], "entropy", ["grpo", "asymgrpo"], against="grpo")
    _zero, mean, *seeds = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), 1)  # the seeds' own waves cancel
    assert mean.get_label() == "AsymGRPO" and len(seeds) == 2


def test_a_row_is_its_seeds_their_mean_and_interval():
    ax = plt.figure().subplots()
    rows = [Row("β_pos", "grpo", [1.0, 2.0, 4.0, np.nan]), Row("one", "asymgrpo", [3.0], is_open=True), Row("none", "grpo", [])]
    plot_intervals(ax, rows, margin=0.5)
    _, seeds, line, mark, single_line, single = ax.lines
    interval = mean_interval([1.0, 2.0, 4.0])
    assert seeds.get_xdata().tolist() == [1, 2, 4] and line.get_xdata() == pytest.approx([interval.low, interval.high])
    assert mark.get_xdata() == pytest.approx([interval.mean]) and mark.get_color() == "#0072B2"
    assert np.isnan(single_line.get_xdata()).all() and single.get_markerfacecolor() == "white"
    assert [text.get_text() for text in ax.get_yticklabels()] == [r"$\beta_\mathrm{pos}$", "one", "none"]
    assert ax.yaxis_inverted()


def test_summaries_and_differences_pair_seeds():
    data = metrics().assign(policy="small")
    means = data.groupby(["policy", "variant", "seed"], as_index=False).entropy.mean()
    assert difference(means, "entropy", "asymgrpo", "grpo").tolist() == pytest.approx([1, 1, 1])
    assert difference(means, "entropy", "asymgrpo", "reinforce").empty
    table = summarize(data, ["grpo", "asymgrpo"], {"entropy": ("entropy", 1), "missing": ("missing", 1)}, against="grpo")
    assert table.to_dict("records") == [{"policy": "small", "method": "AsymGRPO", "seeds": 3, "entropy": 1.0, "± entropy": 0.0}]


def test_curves_of_each_policy_stand_beside_their_differences():
    """Figs. 3 and 4; accuracy is entropy's number here, and AsymGRPO's is one above GRPO's on every seed."""
    data = pd.concat([metrics().assign(policy=policy) for policy in ("small", "base")])
    data = data.assign(val_acc=data.entropy)
    fig = compare_curves(data, ["small", "base"], ["grpo", "asymgrpo"], {"asymgrpo": "grpo"}, "a title")
    assert len(fig.axes) == 6
    assert fig.axes[2].get_title(loc="left") == "(c) a title"
    assert fig.axes[5].lines[1].get_ydata() == pytest.approx(100)
    late = summarize_curves(data, ["grpo", "asymgrpo"], against="grpo")
    assert late[["late entropy", "late accuracy", "± late accuracy"]].to_numpy().tolist() == [[1, 100, 0]] * 2
    both = summarize_curves(data, ["grpo", "asymgrpo"])
    parts = ("entropy", "accuracy", "late entropy", "late accuracy")
    assert list(both)[3:] == [f"{sign}{part}" for part in parts for sign in ("", "± ")]


def test_a_difference_to_what_has_no_runs_is_not_drawn():
    ax = plt.figure().subplots()
    plot_curves(ax, metrics(), "entropy", ["reinforce", "grpo"], against="reinforce")
    assert [line.get_ydata() for line in ax.lines] == [[0, 0]]


def test_a_relatives_mark_is_seen_on_its_interval():
    """Marks of strokes, as "+", have the interval's width and vanish in it."""
    _, ax = plt.subplots()
    plot_intervals(ax, [Row(name, name, [1.0, 2.0, 4.0]) for name in RELATED])
    marks = [line.get_marker() for line in ax.lines if line.get_zorder() == 3]
    assert len(marks) == len(RELATED) and all(MarkerStyle(mark).is_filled() for mark in marks)
