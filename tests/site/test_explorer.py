"""The explorer in a real browser: its sliders are moved and its numbers compared with asymlib's."""

import itertools

import numpy as np
import pytest
from scipy import stats

from asymlib import flipped_negative, flipped_positive, get_method
from asymlib.interactive import explorer
from asymlib.interactive.explorer import GROUP_SIZES
from asymlib.methods import CATALOGUE, CURVES


@pytest.fixture(scope="module")
def page(open_fragment):
    page = open_fragment(explorer.show())
    page.get_by_text("Their relatives").click()
    return page


def values(page) -> dict:
    return page.evaluate("window.asymlibExplorer.values()")


def in_words(name: str) -> str:
    """A method's label as the page sets it: the subscript of beta has no underscore."""
    return CATALOGUE[name].label.replace("β_", "β")


def move(page, **sliders) -> None:
    for name, value in sliders.items():
        page.locator(f"input[name={name}]").fill(f"{value:g}")


def table(curve: str, beta_pos: float, beta_neg: float, group_size: int):
    method = next(m for m in CATALOGUE.values() if m.curve == curve)
    return get_method(method.name, beta_pos=beta_pos, beta_neg=beta_neg).table(group_size)


def rms(a, b) -> float:
    """Over the 2 G entries that a rollout can get; the other two are 0 in both."""
    return np.sqrt(sum(np.sum((x - y) ** 2) for x, y in zip(a, b, strict=True)) / (2 * (len(a[0]) - 1)))


@pytest.mark.parametrize("curve", explorer.DRAWN_CURVES)
def test_sliders_give_the_tables_of_asymlib(page, curve):
    page.locator(f"input[value={curve}]").check()
    for beta_pos, beta_neg, group_size in itertools.product((0, 0.5, 1.45), (0, 0.4, 1.5), (3, 8, 13, 32)):
        move(page, beta_pos=beta_pos, beta_neg=beta_neg, group_size=group_size)
        shown = values(page)
        assert (shown["beta_pos"], shown["beta_neg"], shown["group_size"]) == (beta_pos, beta_neg, group_size)
        pos, neg = table(curve, beta_pos, beta_neg, group_size)
        np.testing.assert_allclose(shown["pos"], pos, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(shown["neg"], neg, rtol=1e-12, atol=1e-12)
        k = np.arange(group_size + 1)
        np.testing.assert_allclose(shown["weight_right"], k * pos, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(shown["weight_wrong"], (group_size - k) * np.abs(neg), rtol=1e-12, atol=1e-12)


def test_a_flips_ends_are_those_of_equations_15_to_18(page):
    page.locator("input[value=flipped_positive]").check()
    move(page, beta_pos=0.5, beta_neg=0.5, group_size=8)
    assert values(page)["pos"][-1] == pytest.approx(2 * 7**0.5 - 3**0.5)
    assert values(page)["pos"][-1] == pytest.approx(flipped_positive(1, 8))
    page.locator("input[value=flipped_negative]").check()
    assert values(page)["neg"][0] == pytest.approx(flipped_negative(0, 8))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_preset_is_its_method(page, name):
    move(page, group_size=8)
    page.get_by_role("button", name=CATALOGUE[name].label, exact=True).click()
    for group_size in (5, 8, 16):
        move(page, group_size=group_size)
        shown = values(page)
        pos, neg = CATALOGUE[name].table(group_size)
        np.testing.assert_allclose(shown["pos"], pos, rtol=1e-8)
        np.testing.assert_allclose(shown["neg"], neg, rtol=1e-8)
        same = [m.name for m in CATALOGUE.values() if rms(m.table(group_size), (pos, neg)) < 1e-9]
        assert shown["nearest"] == same and name in same
        assert in_words(same[0]) in page.locator(".result").inner_text()
        assert page.get_by_role("button", name=CATALOGUE[name].label, exact=True).get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize(
    "beta_pos, beta_neg, group_size", [(0.95, 0.45, 8), (0.1, 0.4, 8), (0.65, 0.75, 16), (1.5, 0, 4), (0.3, 0.3, 32)]
)
def test_the_nearest_method(page, beta_pos, beta_neg, group_size):
    page.locator("input[value=beta]").check()
    move(page, beta_pos=beta_pos, beta_neg=beta_neg, group_size=group_size)
    own, distances = table("beta", beta_pos, beta_neg, group_size), {}
    for method in CATALOGUE.values():
        try:
            distances[method.name] = rms(method.table(group_size), own)
        except ValueError:  # Pass@5 needs a group of 5
            distances[method.name] = None
    shown = values(page)
    assert shown["distances"] == {name: d and pytest.approx(d, abs=1e-8) for name, d in distances.items()}
    nearest = min((name for name in distances if distances[name] is not None), key=distances.get)
    assert shown["nearest"][0] == nearest
    assert f"Nearest method: {in_words(nearest)}" in page.locator(".result").inner_text()


@pytest.mark.parametrize("a, b", [(1, 1), (0.4, 0.4), (3, 1), (1, 3), (5.5, 0.2)])
@pytest.mark.parametrize("name", ["grpo", "asymgrpo", "pass_at_k"])
def test_the_mean_push_over_a_distribution_of_p(page, a, b, name):
    move(page, group_size=8)
    page.get_by_role("button", name=CATALOGUE[name].label, exact=True).click()
    move(page, a=a, b=b)
    shown, k = values(page), np.arange(9)
    share, (pos, neg) = stats.betabinom(8, a, b).pmf(k), CATALOGUE[name].table(8)
    np.testing.assert_allclose(shown["shares"], share, rtol=1e-9)
    assert shown["mean_right"] == pytest.approx(share @ (k * pos) / (share @ k), rel=1e-7)
    assert shown["mean_wrong"] == pytest.approx(share @ ((8 - k) * neg) / (share @ (8 - k)), rel=1e-7)


def test_distributions_by_name(page):
    page.get_by_role("button", name="hard-heavy").click()
    assert (values(page)["a"], values(page)["b"]) == (1, 3)
    page.get_by_role("button", name="uniform").click()
    np.testing.assert_allclose(values(page)["shares"], np.full(len(values(page)["pos"]), 1 / len(values(page)["pos"])))


def test_a_method_whose_group_size_is_not_allowed_cannot_be_chosen(page):
    page.get_by_role("button", name="Pass@K Training").click()
    move(page, group_size=4)
    assert values(page)["fixed"] is None
    assert page.get_by_role("button", name="Pass@K Training").is_disabled()
    move(page, group_size=5)
    assert page.get_by_role("button", name="Pass@K Training").is_enabled()


def test_by_keyboard_alone(page):
    page.get_by_role("button", name="GRPO", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_label("group size G").focus()
    before = values(page)["group_size"]
    page.keyboard.press("ArrowRight")
    assert values(page)["group_size"] == before + 1
    page.get_by_label("βpos (right)").focus()
    page.keyboard.press("ArrowLeft")
    assert values(page)["beta_pos"] == pytest.approx(0.45)


def test_the_table_shows_the_values(page):
    page.get_by_role("button", name="GRPO", exact=True).click()
    move(page, group_size=8)
    page.get_by_text("All values as a table").click()
    row = page.locator("tbody tr").nth(2).inner_text().replace("\u2212", "-").split()
    assert [float(x) for x in row[:5]] == pytest.approx([2, 3**0.5, -(3**-0.5), 2 * 3**0.5, 6 * 3**-0.5], abs=5e-4)


def test_the_drawn_curve_goes_through_the_values(page):
    """The first marker of the right curve lies where its value is on the axis: read back from the picture."""
    page.get_by_role("button", name="REINFORCE", exact=True).click()
    move(page, group_size=8)
    heights = [m.bounding_box()["y"] for m in page.locator("svg[role=img]").first.locator("path.mark.right").all()]
    assert len(heights) == 8 and max(heights) - min(heights) < 0.5
    move(page, beta_pos=1)
    heights = [m.bounding_box()["y"] for m in page.locator("svg[role=img]").first.locator("path.mark.right").all()]
    assert heights == sorted(heights) and heights[-1] - heights[0] > 50


@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits(open_fragment, width):
    page = open_fragment(explorer.show(), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for svg in page.locator("svg[role=img]").all():
        assert svg.bounding_box()["width"] > 250 and svg.get_attribute("aria-label")


@pytest.mark.parametrize("where", ["explorer.html", "index.html", "notebooks/03_play.html"])
def test_on_the_built_site(served, browser, where):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(served + where)
    page.locator("input[value=flipped_positive]").check()
    move(page, beta_pos=0.8, beta_neg=0.3, group_size=12)
    pos, neg = table("flipped_positive", 0.8, 0.3, 12)
    np.testing.assert_allclose(values(page)["pos"], pos, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(values(page)["neg"], neg, rtol=1e-12, atol=1e-12)
    page.set_viewport_size({"width": 390, "height": 900})
    move(page, group_size=8)
    page.get_by_text("All values as a table").click()
    assert page.evaluate("(box => box.scrollWidth <= box.clientWidth)(document.querySelector('.asymlib .scroll'))")
    page.close()


def test_the_dotted_curves(page):
    """GRPO's unless one asks for the nearest method's or none; a curve is not drawn over itself."""
    move(page, group_size=8)
    page.get_by_role("button", name="AsymGRPO", exact=True).click()
    assert page.locator("path.reference").count() == 2
    page.get_by_label("Dotted").select_option("nearest")
    assert page.locator("path.reference").count() == 0  # AsymGRPO itself
    move(page, beta_pos=0.7)
    assert page.locator("path.reference").count() == 2
    page.get_by_label("Dotted").select_option("none")
    assert page.locator("path.reference").count() == 0
    page.get_by_label("Dotted").select_option("grpo")
    move(page, beta_pos=0.5, beta_neg=0.5)
    assert page.locator("path.reference").count() == 0


def test_the_address_holds_the_state(served, browser):
    """What was chosen is in the address, whoever opens it sees the same, and what it cannot mean is ignored."""
    page = browser.new_page()
    page.goto(f"{served}explorer.html")
    page.locator("input[value=flipped_positive]").check()
    move(page, beta_pos=0.35, group_size=12, a=2.5)
    page.get_by_label("Dotted").select_option("nearest")
    page.wait_for_url("**reference=nearest")
    chosen, address = values(page), page.url
    page.get_by_role("button", name="Pass@K Training").click()
    page.wait_for_url("**fixed=pass_at_k*")
    fixed = page.url
    page.goto(address)
    assert values(page) == chosen and (chosen["curve"], chosen["beta_pos"], chosen["a"]) == ("flipped_positive", 0.35, 2.5)
    assert page.get_by_label("Dotted").input_value() == "nearest"
    page.goto(fixed)
    assert values(page)["fixed"] == "pass_at_k"
    page.goto(f"{served}explorer.html?beta_pos=9&beta_neg=&group_size=7.5&a=x&curve=round&fixed=nobody&reference=")
    shown = values(page)
    assert [shown[name] for name in ("beta_pos", "beta_neg", "group_size", "a", "curve", "fixed", "reference")] == [
        0.9, 0.4, 8, 1, "beta", None, "grpo",
    ]  # fmt: skip
    page.close()


def test_two_on_one_page_do_not_share_ids(open_fragment):
    page = open_fragment(explorer.show() + explorer.show())
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids)) > 8
    assert page.locator("input[name=beta_pos]").count() == 2


def test_methods_reach_the_page_from_the_catalogue_alone():
    exported = explorer.data()["methods"]
    weighted_or_masked = {"psr", "nsr", "w_reinforce", "reinforce_rej", "positive_dominant", "negative_dominant"}
    assert [m["name"] for m in exported] == list(CATALOGUE)
    assert set(explorer.DRAWN_CURVES) <= set(CURVES)
    for row, method in zip(exported, CATALOGUE.values(), strict=True):
        allowed = [g for g in GROUP_SIZES if not method.pass_k or g >= method.pass_k]
        assert ("tables" in row) == (method.curve not in explorer.DRAWN_CURVES or method.name in weighted_or_masked)
        assert list(row.get("tables", allowed)) == allowed


@pytest.mark.parametrize("dark", ['data-jp-theme-light="false"', 'class="vscode-dark"'])
def test_it_is_dark_in_a_dark_notebook(open_fragment, dark):
    page = open_fragment(f'<div {dark} style="background: #111; color: #eee">{explorer.show()}</div>')
    curve, words = (page.locator(f".asymlib {what}").first for what in ("path.curve.right", "svg text"))
    assert curve.evaluate("(e) => getComputedStyle(e).stroke") == "rgb(108, 192, 245)"
    assert words.evaluate("(e) => getComputedStyle(e).fill") == "rgb(238, 238, 238)"


def test_a_notebook_displays_it():
    shown = explorer.show()
    assert shown._repr_html_() == shown and len(repr(shown)) < 40
