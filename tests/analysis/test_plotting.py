"""One look per method everywhere, curves with bands and seeds, and figures fit for print."""

import itertools
import re
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from asymlib import METHODS
from asymlib.analysis.plotting import (
    LOOKS,
    SWEEPS,
    finish_panels,
    label,
    load_comparable,
    look,
    math,
    plot_curves,
    save_figure,
    use_style,
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


def lightness(color) -> float:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114)))


def test_every_method_has_a_look_of_its_own():
    """Line style and marker alone tell any two apart: a grey print can be read."""
    assert set(METHODS) <= set(LOOKS)
    assert len({look(name).color for name in LOOKS}) >= len(LOOKS) - 2  # GRPO and its entropy bonuses share hues
    assert len({(look(name).linestyle, look(name).marker) for name in LOOKS}) == len(LOOKS)
    assert all(lightness(look(name).color) < 0.75 for name in LOOKS)  # visible on white


@pytest.mark.parametrize("parameter", SWEEPS)
def test_a_sweep_keeps_the_methods_looks(parameter):
    swept = [SWEEPS[parameter][beta] for beta in sorted(SWEEPS[parameter])]
    assert look(swept[0]) == LOOKS["reinforce"]
    assert look(swept[2]) == LOOKS["pos_only" if parameter == "beta_pos" else "neg_only"]
    assert len({(look(v).linestyle, look(v).marker) for v in swept}) == len({look(v).color for v in swept}) == 5


def test_looks_of_changed_methods():
    assert look("reinforce entropy_coeff=0.02") == LOOKS["reinforce entropy_coeff"]
    assert look("grpo clip_high=0.3") == LOOKS["grpo"]._replace(linestyle=":")
    assert look("reinforce beta_pos=7.0").color == look("reinforce beta_pos=1.0").color
    assert look("reinforce beta_neg=0.5 beta_pos=0.5") == LOOKS["reinforce"]._replace(linestyle=":")


def test_labels():
    assert label("reinforce beta_neg=0.75") == "REINFORCE, β_neg = 0.75"
    assert label("reinforce mask_all_solved=True mask_none_solved=True") == "REINFORCE, all-solved masked, none-solved masked"
    assert math("β_neg = 1") == r"$\beta_\mathrm{neg}$ = 1"


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
    fig, axes = plt.subplots(1, 2, layout="constrained")
    for ax, title in zip(axes, ("left", "right"), strict=True):
        plot_curves(ax, metrics(), "entropy", ["grpo", "asymgrpo"])
        ax.set(title=title, ylabel="nats")
    finish_panels(fig, axes)
    assert [ax.get_title(loc="left") for ax in axes] == ["(a) left", "(b) right"]
    assert [ax.get_ylabel() for ax in axes] == ["nats", ""]
    assert [text.get_text() for text in fig.legends[0].texts] == ["GRPO", "AsymGRPO"]


@pytest.fixture
def files(tmp_path):
    def draw(folder):
        fig, ax = plt.subplots()
        plot_curves(ax, metrics(), "entropy", ["grpo", "asymgrpo"])
        ax.set(title=math("β_pos swept"), xlabel="step")
        save_figure(fig, "lab", "curves", tmp_path / folder)
        return {path.suffix: path.read_bytes() for path in (tmp_path / folder / "lab" / "figures").iterdir()}

    return draw


def test_figures_carry_their_glyphs(files):
    """PDF with TrueType fonts inside (type 42, no type 3); SVG with outlines and no text that a viewer's font could change."""
    saved = files("one")
    assert set(saved) == {".png", ".svg", ".pdf"}
    objects = saved[".pdf"] + b"".join(map(_inflated, re.findall(rb"stream\r?\n(.*?)endstream", saved[".pdf"], re.DOTALL)))
    assert b"/FontFile2" in objects and b"/Type3" not in objects
    assert b"<text" not in saved[".svg"] and b"<image" not in saved[".svg"] and b"<path" in saved[".svg"]
    assert saved[".png"][:4] == b"\x89PNG"


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_equal_figures_are_equal_bytes(files):
    assert files("one") == files("two")


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path):
    fig, ax = plt.subplots()
    ax.set_title("$\\notacommand$")
    with pytest.raises(ValueError):
        save_figure(fig, "lab", "broken", tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_comparable_runs_share_settings_but_not_the_group_size(finished_run, tmp_path, capsys):
    """A group size makes a variant of its own; other steps, and a collapse, leave a run out and are said."""
    for seed in (0, 1, 2):
        finished_run(seed=seed)
        finished_run(seed=seed, group_size=16)
    finished_run(seed=3, steps=7)
    finished_run(seed=4, collapse="NaN at step 2")
    found = load_comparable("quick", tmp_path)
    assert found.groupby("variant").seed.agg(sorted).to_dict() == {"grpo": [0, 1, 2], "grpo group_size=16": [0, 1, 2]}
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "left out, with other settings: 1 of 8 runs: grpo (seed 3)",
        "left out, collapsed: 1 of 8 runs: grpo (seed 4)",
    ]
