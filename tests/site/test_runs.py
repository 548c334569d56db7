"""The run browser in a real browser, its means and intervals compared with asymlib's statistics on the records."""

import contextlib
import io
import json
import re

import numpy as np
import pandas as pd
import pytest

from asymlib.analysis.looks import look
from asymlib.analysis.panels import seed_curves
from asymlib.analysis.selection import NothingToDraw, load_comparable
from asymlib.analysis.statistics import mean_interval
from asymlib.interactive import runs
from asymlib.runs.records import gather, run_folder
from asymlib.runs.spec import make_spec
from asymlib.runs.writer import RunWriter

LAB = runs.data("lab")


@pytest.fixture(scope="module")
def metrics():
    with contextlib.redirect_stdout(io.StringIO()):
        return gather(load_comparable("lab"), "metrics")


@pytest.fixture(scope="module")
def page(open_fragment):
    return open_fragment(runs.show("lab"))


def values(page) -> dict:
    return page.evaluate("window.asymlibRuns.values()")


def choose(page, store: str, names) -> None:
    fieldset = page.locator(f"fieldset.{store}")
    fieldset.get_by_role("button", name="none").click()
    for name in names:
        fieldset.locator(f"input[value='{name}']").check()


@pytest.mark.parametrize("column", ["val_acc", "entropy", "none_solved", "log_prob_increment_pos", "val_acc/walk-mix"])
def test_means_and_intervals_are_those_of_the_records(page, metrics, column):
    """To the four digits that the page carries."""
    variants, scale = ["grpo", "asymgrpo", "reinforce beta_pos=0.25"], runs.METRICS.get(column, (0, 0, 100))[2]
    page.get_by_label("Metric").select_option(column)
    page.locator("fieldset.seeds").get_by_role("button", name="all").click()
    choose(page, "variants", variants)
    shown = values(page)
    assert set(shown["curves"]) == set(variants)
    for variant in variants:
        rows = metrics[(metrics.variant == variant) & (metrics.policy == shown["policy"])]
        curves = scale * seed_curves(rows, column).loc[shown["steps"]]
        assert shown["curves"][variant]["seeds"] == list(curves.columns)
        for (_, seeds), over in zip(curves.iterrows(), shown["curves"][variant]["over"], strict=True):
            interval, digits = mean_interval(seeds.to_numpy()), 1e-3 * np.abs(seeds).max()
            assert over["seeds"] == interval.seeds == len(curves.columns)
            assert over["mean"] == pytest.approx(interval.mean, abs=digits)
            assert over["half"] == pytest.approx((interval.high - interval.low) / 2, abs=5 * digits)


def test_fewer_seeds(page, metrics):
    page.get_by_label("Metric").select_option("entropy")
    choose(page, "variants", ["grpo"])
    for count in (2, 1):
        chosen = sorted({run["seed"] for run in LAB["runs"]})[:count]
        choose(page, "seeds", chosen)
        shown = values(page)
        assert shown["curves"]["grpo"]["seeds"] == chosen
        expected = seed_curves(metrics[(metrics.variant == "grpo") & (metrics.policy == shown["policy"])], "entropy")[chosen]
        assert shown["curves"]["grpo"]["over"][-1]["mean"] == pytest.approx(expected.iloc[-1].mean(), rel=1e-3)
        assert page.locator(".seed").count() == (count if count > 1 else 0)
        assert page.locator(".band").count() == 0
    choose(page, "seeds", [])
    assert values(page)["curves"] == {}


def test_hovering_and_the_slider_read_values(page):
    page.locator("fieldset.seeds").get_by_role("button", name="all").click()
    page.get_by_label("Metric").select_option("val_acc")
    choose(page, "variants", ["grpo"])
    box = page.locator("svg[role=img]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = values(page)
    assert 0.3 * shown["steps"][-1] < shown["step"] < 0.7 * shown["steps"][-1]
    page.get_by_label("values at step").focus()
    page.keyboard.press("Home")
    shown = values(page)
    assert shown["step"] == shown["steps"][0]
    row = re.findall(r"[\d.]+", page.locator("tbody tr").inner_text())
    over = shown["curves"]["grpo"]["over"][0]
    assert [float(x) for x in row] == pytest.approx([over["mean"], over["half"], over["seeds"]], abs=5e-4)


def test_colors_are_those_of_the_figures(page):
    page.locator("fieldset.variants").get_by_role("button", name="all").click()
    drawn = page.locator("path[data-variant]").all()
    assert len(drawn) == len(LAB["variants"])
    for path in drawn:
        assert path.get_attribute("style") == f"--c: {look(path.get_attribute('data-variant')).color}"
    looks = {(v["color"], v["dash"], v["marker"]) for v in LAB["variants"]}
    assert len(looks) == len(LAB["variants"])  # no two alike


def test_the_page_stays_light():
    assert len(json.dumps(LAB, separators=(",", ":"))) < 2_000_000
    assert len(LAB["runs"][0]["curves"]["entropy"]) <= runs.POINTS


@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits(open_fragment, width):
    page = open_fragment(runs.show("lab"), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg[role=img]").bounding_box()["width"] >= 320


def test_on_the_built_site(served, browser):
    """The theme's styles leave it its width; its values are those of the fragment."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(served + "runs.html")
    assert page.locator(".asymlib-runs svg[role=img]").bounding_box()["width"] > 700
    shown = values(page)
    assert shown["steps"] == LAB["steps"][shown["policy"]][shown["metric"]]
    page.close()


def test_what_is_left_out_is_said(tmp_path):
    for seed, collapse in ((0, None), (1, None), (2, "NaN")):
        spec = make_spec(method="grpo", steps=130, seed=seed, profile="lab")
        writer = RunWriter(spec, run_folder(spec, tmp_path))
        for step in range(1, 131):
            validation = {"val_acc": 0.5} if step % 10 == 0 else {}
            writer.log({"step": step, "entropy": step / 10 + seed, "reward": None} | validation)
        writer.finish([], pd.DataFrame({"step": [1], "accuracy": [0.5], "covariance": [0.1]}), collapse)
    data = runs.data("lab", tmp_path)
    assert [run["seed"] for run in data["runs"]] == [0, 1]
    assert any("collapsed" in line and "seed 2" in line for line in data["left_out"])
    assert "reward" not in data["steps"]["small"]
    assert data["steps"]["small"]["entropy"] == list(range(1, 131))[::-3][::-1]
    assert data["steps"]["small"]["val_acc"] == list(range(10, 131, 10))


def test_variants_that_no_look_tells_apart_are_left_out(tmp_path):
    for changes in ({}, {"beta_pos": 0.5}, {"beta_pos": 0.25, "beta_neg": 0.5}, {"beta_pos": 0.5, "beta_neg": 0.5}):
        spec = make_spec(method="reinforce", steps=1, profile="lab", **changes)
        writer = RunWriter(spec, run_folder(spec, tmp_path))
        writer.log({"step": 1, "entropy": 0.5})
        writer.finish([], pd.DataFrame({"step": [1], "accuracy": [0.5], "covariance": [0.1]}))
    data = runs.data("lab", tmp_path)
    assert [variant["name"] for variant in data["variants"]] == ["reinforce", "reinforce beta_pos=0.5"]
    assert data["left_out"] == [
        "left out, drawn alike: 2 of 4 runs: reinforce beta_neg=0.5 beta_pos=0.25, reinforce beta_neg=0.5 beta_pos=0.5"
    ]


def test_no_runs(tmp_path):
    with pytest.raises(NothingToDraw, match="no finished run"):
        runs.data("lab", tmp_path)
