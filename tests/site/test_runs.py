"""The run browser in a real browser, its means and intervals compared with asymlib's statistics on the records."""

import contextlib
import io
import json
import re
from collections import Counter
from math import ceil

import numpy as np
import pandas as pd
import pytest

from asymlib.analysis.looks import look
from asymlib.analysis.panels import seed_curves
from asymlib.analysis.selection import NothingToDraw, load_comparable
from asymlib.analysis.statistics import mean_interval
from asymlib.interactive import runs
from asymlib.runs.records import gather, load_runs, results_root, run_folder
from asymlib.runs.spec import make_spec
from asymlib.runs.writer import RunWriter

ALL = runs.data()


@pytest.fixture(scope="module")
def metrics():
    with contextlib.redirect_stdout(io.StringIO()):
        return gather(load_comparable("lab"), "metrics")


@pytest.fixture(scope="module")
def html():
    return runs.show()


@pytest.fixture(scope="module")
def page(open_fragment, html):
    page = open_fragment(html)
    page.get_by_text("Methods with other settings").click()
    return page


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
        rows = metrics[(metrics.variant == variant) & (metrics.policy == "small")]
        curves = scale * seed_curves(rows, column).loc[shown["steps"]]
        assert shown["group"] == "lab/small" and shown["curves"][variant]["seeds"] == list(curves.columns)
        for (_, seeds), over in zip(curves.iterrows(), shown["curves"][variant]["over"], strict=True):
            interval, digits = mean_interval(seeds.to_numpy()), 1e-3 * np.abs(seeds).max()
            assert over["seeds"] == interval.seeds == len(curves.columns)
            assert over["mean"] == pytest.approx(interval.mean, abs=digits)
            assert over["half"] == pytest.approx((interval.high - interval.low) / 2, abs=5 * digits)


def test_fewer_seeds(page, metrics):
    page.get_by_label("Metric").select_option("entropy")
    choose(page, "variants", ["grpo"])
    for count in (2, 1):
        chosen = sorted({run["seed"] for run in ALL["runs"] if run["group"] == "lab/small"})[:count]
        choose(page, "seeds", chosen)
        shown = values(page)
        assert shown["curves"]["grpo"]["seeds"] == chosen
        expected = seed_curves(metrics[(metrics.variant == "grpo") & (metrics.policy == "small")], "entropy")[chosen]
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


def test_every_finished_run_of_every_profile_is_there():
    """What is left out is named, and of the committed records nothing is."""
    profiles = results_root().glob("*/runs")  # results/rehearsal/h100/runs is not among them
    records = [record.spec for folder in profiles for record in load_runs(folder).record]
    there = Counter((run["group"].split(",")[0], run["variant"], run["seed"]) for run in ALL["runs"])
    collapsed = Counter({("rates/small", "reinforce", 203): 1})  # at the largest learning rate
    assert there + collapsed == Counter((f"{spec.profile}/{spec.policy}", spec.variant, spec.seed) for spec in records)
    assert ALL["left_out"] == ["rates: left out, collapsed: reinforce, seed 203, learning rate 0.0006"]
    rates = [group for group in ALL["groups"] if group["name"].startswith("rates/")]
    assert len(rates) == 4 and "rates: small, 500 steps, learning rate 0.0006" in [group["label"] for group in rates]


def test_another_group_of_runs_brings_its_methods_and_seeds(page, metrics):
    page.get_by_label("Metric").select_option("entropy")
    for group, profile in (("long/small", "long"), ("lab/base", "lab")):
        page.locator("fieldset.seeds").get_by_role("button", name="all").click()
        page.get_by_label("Runs").select_option(group)
        page.locator("fieldset.seeds").get_by_role("button", name="all").click()
        page.locator("fieldset.variants").get_by_role("button", name="all").click()
        found = load_runs(results_root() / profile / "runs")
        found = found[found.policy == group.split("/")[1]]
        shown = values(page)
        assert set(shown["curves"]) == set(found.variant)
        assert shown["steps"][-1] == found.steps.iloc[0]
        assert {seed for curve in shown["curves"].values() for seed in curve["seeds"]} == set(found.seed)
        seeds = page.locator("fieldset.seeds input:visible")
        assert {int(box.get_attribute("value")) for box in seeds.all()} == set(found.seed)
    page.get_by_label("Runs").select_option("lab/small")


def test_colors_are_those_of_the_figures(page):
    """But where the figures draw several alike, those after the first have a hue of their own: all can be told apart."""
    page.locator("fieldset.seeds").get_by_role("button", name="all").click()
    page.locator("fieldset.variants").get_by_role("button", name="all").click()
    drawn = {
        path.get_attribute("data-variant"): path.get_attribute("style") for path in page.locator("path[data-variant]").all()
    }
    assert set(drawn) == {run["variant"] for run in ALL["runs"] if run["group"] == "lab/small"}
    first = {look(name): name for name in reversed([variant["name"] for variant in ALL["variants"]])}
    for own, name in first.items():
        assert name not in drawn or drawn[name] == f"--c: {own.color.replace('#000000', 'currentColor')}"
    assert len({(v["color"], v["dash"], v["marker"]) for v in ALL["variants"]}) == len(ALL["variants"])


def test_the_page_stays_light():
    assert len(json.dumps(ALL, separators=(",", ":"))) < 3_000_000
    assert max(len(curve) for run in ALL["runs"] for curve in run["curves"].values()) <= runs.POINTS


@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits(open_fragment, html, width):
    page = open_fragment(html, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg[role=img]").bounding_box()["width"] >= 320


def test_on_the_built_site(served, browser):
    """The theme's styles leave it its width; its values are those of the fragment."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(served + "runs.html")
    assert page.locator(".asymlib-runs svg[role=img]").bounding_box()["width"] > 700
    shown = values(page)
    assert shown["steps"] == ALL["steps"][shown["group"]][shown["metric"]]
    page.close()


@pytest.mark.parametrize("where", ["served", "file"])
def test_the_address_holds_the_state(served, site, browser, where):
    """What was chosen is in the address, whoever opens it sees the same, and what it cannot mean is ignored."""
    start = f"{served}runs.html" if where == "served" else (site / "runs.html").as_uri()
    page = browser.new_page()
    page.goto(start)
    page.get_by_label("Runs").select_option("long/small")
    page.get_by_label("Metric").select_option("entropy")
    choose(page, "variants", ["grpo", "asymgrpo_symmetric"])
    choose(page, "seeds", [108, 109])
    page.get_by_label("values at step").fill("3")
    page.wait_for_url("**step=*")
    chosen, address = values(page), page.url
    page.close()
    other = browser.new_page()
    other.goto(address)
    assert values(other) == chosen
    assert set(chosen["curves"]) == {"grpo", "asymgrpo_symmetric"} and chosen["curves"]["grpo"]["seeds"] == [108, 109]
    assert chosen["group"] == "long/small" and chosen["at"] == 3
    other.goto(f"{start}?group=nowhere&metric=luck&step=x&variants=grpo&variants=nobody&seeds=-3")
    shown = values(other)
    assert (shown["group"], shown["metric"], shown["at"]) == ("lab/small", "val_acc", len(shown["steps"]) - 1)
    other.goto(f"{start}?metric=entropy#run-browser")
    assert values(other)["metric"] == "entropy" and len(values(other)["curves"]) == 5
    other.close()


def test_alone_it_leaves_the_address_alone(page):
    page.get_by_label("Metric").select_option("entropy")
    page.wait_for_timeout(400)
    assert "?" not in page.url


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
    assert "reward" not in data["steps"]["lab/small"]
    assert data["steps"]["lab/small"]["entropy"] == list(range(1, 131))[:: -ceil(130 / runs.POINTS)][::-1]
    assert data["steps"]["lab/small"]["val_acc"] == list(range(10, 131, 10))


def test_no_runs(tmp_path):
    with pytest.raises(NothingToDraw, match="no finished run"):
        runs.data("lab", tmp_path)
    with pytest.raises(NothingToDraw, match="no finished run"):
        runs.data(None, tmp_path)


def test_reinforces_curve_has_the_ink_of_the_page(open_fragment, html):
    """On a dark ground its black would hardly be seen."""
    page = open_fragment(html)
    page.evaluate("document.documentElement.dataset.theme = 'dark'; document.body.style = 'color: #eee; background: #14181e'")
    stroke = page.locator("path[data-variant=reinforce]").evaluate("path => getComputedStyle(path).stroke")
    assert min(float(channel) for channel in re.findall(r"0\.\d+|1\b", stroke)[:3]) > 0.9, stroke
    assert "β_" not in page.locator("fieldset.variants").inner_text()
