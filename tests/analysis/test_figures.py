"""Figures fit for print, light enough to commit, and written only when their pixels changed."""

import re
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asymlib.analysis.figures import PDF, save_figure, save_table, use_style


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def draw(folder, height=1.0, seeds=1):
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, height], marker="*", color="#D55E00", label="AsymGRPO")
    for seed in range(seeds):
        ax.plot(np.linspace(0, 1, 500), np.random.default_rng(seed).random(500), alpha=0.2, zorder=0.5, rasterized=True)
    ax.set(title="$\\beta$ swept", xlabel="step")
    folder.mkdir(exist_ok=True)
    save_figure(fig, "lab", "curves", folder)
    return {path.suffix: path for path in (folder / "lab" / "figures").iterdir()}


def test_figures_carry_their_glyphs(tmp_path, monkeypatch):
    """PDF, on request only, with TrueType fonts inside (type 42, no type 3); SVG with outlines and no text that a viewer's font
    could change."""
    assert set(draw(tmp_path / "plain")) == {".png", ".svg"}
    monkeypatch.setenv(PDF, "1")
    saved = {suffix: path.read_bytes() for suffix, path in draw(tmp_path / "pdf").items()}
    objects = saved[".pdf"] + b"".join(map(_inflated, re.findall(rb"stream\r?\n(.*?)endstream", saved[".pdf"], re.DOTALL)))
    assert b"/FontFile2" in objects and b"/Type3" not in objects
    assert b"<text" not in saved[".svg"] and b"<path" in saved[".svg"]


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_equal_figures_are_equal_bytes_and_pictures_have_a_palette(tmp_path):
    one, two = draw(tmp_path / "one"), draw(tmp_path / "two")
    assert {suffix: path.read_bytes() for suffix, path in one.items()} == {s: path.read_bytes() for s, path in two.items()}
    with Image.open(one[".png"]) as picture:
        assert picture.mode == "P"


def test_faint_seeds_cost_a_vector_file_little(tmp_path):
    size = {seeds: draw(tmp_path / str(seeds), seeds=seeds)[".svg"].stat().st_size for seeds in (1, 60)}
    assert size[60] - size[1] < 300_000  # as paths each costs 10 kB


def test_a_figure_is_written_only_when_its_pixels_changed(tmp_path):
    before = {suffix: path.stat().st_mtime_ns for suffix, path in draw(tmp_path).items()}
    assert {suffix: path.stat().st_mtime_ns for suffix, path in draw(tmp_path).items()} == before
    changed = draw(tmp_path, height=2.0)
    assert all(path.stat().st_mtime_ns > before[suffix] for suffix, path in changed.items())
    whole = changed[".png"].read_bytes()
    changed[".png"].write_bytes(whole[: len(whole) // 2])  # broken: drawn anew
    assert draw(tmp_path, height=2.0)[".png"].read_bytes() == whole


def test_a_table_is_csv_and_markdown(tmp_path):
    save_table(pd.DataFrame({"a": [1.5, None]}), "lab", "t", tmp_path)
    folder = tmp_path / "lab" / "tables"
    assert (folder / "t.csv").read_text() == 'a\n1.5\n""\n'
    assert (folder / "t.md").read_text().splitlines()[0].split() == ["|", "a", "|"]


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path):
    fig, ax = plt.subplots()
    ax.set_title("$\\notacommand$")
    with pytest.raises(ValueError):
        save_figure(fig, "lab", "broken", tmp_path)
    assert not list(tmp_path.rglob("*.*"))
