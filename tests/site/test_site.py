"""The built site: its links, and every page in a real browser."""

import importlib
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe

from asymlib import METHODS, RELATED, RunRecord
from asymlib.methods import CATALOGUE, CURVES

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (1400, 390)
# One page of each kind; axe looks at these, light and dark.
KINDS = (
    "index",
    "explorer",
    "runs",
    "results",
    "claims",
    "methods",
    "methods/asymgrpo",
    "notebooks/03_play",
    "notebooks/20_figure2",
    "guide",
    "h100",
    "api/asymlib.advantages",
    "_modules/asymlib/advantages",
    "search",
)


class Links(HTMLParser):
    """The addresses and anchors of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.addresses, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src", "srcset") and value:
                self.addresses.append(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


def pages_of(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if site / "_static" not in path.parents)


def test_no_link_or_picture_leads_nowhere(site):
    """Every address inside the site has its file, every #anchor its element, and nothing is fetched from elsewhere."""
    pages = {path: Links(path) for path in pages_of(site)}
    assert len(pages) > 50
    broken = []
    for path, page in pages.items():
        for address in page.addresses:
            url = urlsplit(address)
            if url.scheme or url.netloc:
                continue  # a link outwards; that nothing is fetched from there is seen in the browser
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.is_file() or not target.is_relative_to(site):
                broken.append(f"{path.relative_to(site)}: {address}")
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
                broken.append(f"{path.relative_to(site)}: {address} (no such anchor)")
    assert broken == []


def test_every_method_and_notebook_has_its_page(site):
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.stem for path in (site / "methods").glob("*.html")} == set(CATALOGUE)
    assert {path.stem for path in (site / "notebooks").glob("*.html")} == notebooks


def test_every_logged_metric_is_explained():
    docs = yaml.safe_load((ROOT / "docs" / "methods.yaml").read_text())
    records = (RunRecord(path.parent) for path in (ROOT / "results" / "lab" / "runs").glob("*/metrics.parquet"))
    logged = {re.sub("/.*", "/<set>", key) for record in records for key in record.metrics}
    assert logged <= set(docs["metrics"])
    only_verls = set(docs["metrics"]) - logged
    trainer = (ROOT / "asymlib" / "verl" / "trainer.py").read_text()
    assert only_verls and [name for name in only_verls if name.removeprefix("seconds_") not in trainer] == []
    assert set(METHODS) == set(docs["ideas"]) and set(CURVES) == set(docs["curves"])
    assert set(docs["relatives"]) <= set(RELATED)  # a relative without words shows its source


@pytest.fixture(scope="module")
def page(browser):
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.slow
def test_every_page_opens_at_both_widths(site, served, page):
    """No error or warning on the console, no failed or foreign request, every picture there, and no sideways scrolling."""
    faults = []
    page.on("console", lambda said: said.type in ("error", "warning") and faults.append(f"{page.url}: {said.type} {said.text}"))
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    # An aborted request was under way when the page was left, on a busy machine; pictures are waited for below.
    page.on(
        "requestfailed",
        lambda request: "ABORTED" in (request.failure or "") or faults.append(f"{page.url}: {request.url} {request.failure}"),
    )
    page.on(
        "response", lambda response: response.status < 400 or faults.append(f"{page.url}: {response.url} {response.status}")
    )
    page.on(
        "request", lambda request: request.url.startswith((served, "data:")) or faults.append(f"{page.url}: asks {request.url}")
    )
    for path in pages_of(site):
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.goto(served + path.relative_to(site).as_posix())
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
                faults.append(f"{page.url}: {wide} pixels wide at {width}")
        missing = page.evaluate(
            """async () => {
                const images = [...document.images];
                images.forEach((image) => { image.loading = "eager"; });
                await Promise.all(images.map((image) => image.decode().catch(() => {})));
                return images.filter((image) => !image.naturalWidth).map((image) => image.src);
            }"""
        )
        faults += [f"{page.url}: no picture {address}" for address in missing]
    assert faults == []


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, served, mode):
    """Every rule in light mode; in dark mode those that colours can break."""
    only = {"dark": {"runOnly": ["color-contrast", "link-in-text-block"]}}
    options = {"resultTypes": ["violations"]} | only.get(mode, {})
    context = browser.new_context(color_scheme=mode, viewport={"width": 1400, "height": 900})
    page, faults = context.new_page(), []
    for name in KINDS:
        page.goto(f"{served}{name}.html")
        assert page.locator("html").get_attribute("data-theme") == mode
        for violation in Axe().run(page, options=options).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:160] for node in violation["nodes"][:3]]
                faults.append(f"{name}: {violation['id']} ({len(violation['nodes'])}): {nodes}")
    context.close()
    assert faults == []


def column(page, table: int, index: int) -> list[str]:
    cells = page.locator("table.sortable").nth(table).locator(f"tbody td:nth-child({index + 1})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_a_table_sorts_when_its_head_is_clicked(served, page):
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.goto(served + "results.html")
    page.get_by_text("The lab's Table 1", exact=True).click()
    heads = page.locator("table.sortable").first.locator("th")
    names = [text.split("\n")[0].strip() for text in heads.all_inner_texts()]
    average, before = names.index("average"), column(page, 0, 0)
    heads.nth(average).locator("button").click()
    values = [float(text.split()[0]) for text in column(page, 0, average)]
    assert values == sorted(values, reverse=True) and len(set(values)) > 5
    assert heads.nth(average).get_attribute("aria-sort") == "descending"
    heads.nth(average).locator("button").press("Enter")
    assert [float(text.split()[0]) for text in column(page, 0, average)] == values[::-1]
    assert heads.nth(average).get_attribute("aria-sort") == "ascending"
    heads.nth(0).locator("button").click()
    assert column(page, 0, 0) == sorted(before, key=str.casefold)
    assert heads.nth(average).get_attribute("aria-sort") is None


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_of_code_is_cut(served, browser, width):
    page, cut = browser.new_page(viewport={"width": width, "height": 900}), []
    for name in (
        "guide",
        "formulas",
        "h100",
        "add-a-method",
        "methods/asymgrpo",
        "notebooks/00_start_here",
        "_modules/asymlib/advantages",
    ):
        page.goto(f"{served}{name}.html")
        page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        cut += page.evaluate(
            """[...document.querySelectorAll('div.highlight pre')].filter((pre) => pre.scrollWidth > pre.clientWidth + 1)
                .map((pre) => `${location.pathname}: ${pre.textContent.slice(0, 60)}`)"""
        )
    page.close()
    assert cut == []


def test_a_figure_on_a_phone_is_large_and_says_that_it_scrolls(served, browser):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    for name, place in (("claims", "article figure"), ("notebooks/20_figure2", ".cell_output:has(img)")):
        page.goto(f"{served}{name}.html")
        frame = page.locator(place).first
        assert frame.locator("img").first.bounding_box()["width"] > 600 > 390 >= frame.bounding_box()["width"]
        shown = frame.evaluate("(e) => [getComputedStyle(e).overflowX, getComputedStyle(e, '::before').content]")
        assert shown[0] == "scroll" and "swipe" in shown[1]
    page.close()


def test_each_formula_stands_beside_its_code(served, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{served}formulas.html")
    rows = page.locator(".formula-code")
    assert rows.count() == len(yaml.safe_load((ROOT / "docs" / "formulas.yaml").read_text()))
    row = rows.filter(has_text="def positive_advantage")
    formula, code = row.locator("math").first.bounding_box(), row.locator("pre").bounding_box()
    assert formula["x"] + formula["width"] <= code["x"] and code["y"] < formula["y"] + formula["height"]
    page.close()


@pytest.fixture(scope="module")
def pages():
    """docs/pages.py, which Sphinx imports from its own folder."""
    sys.path.insert(0, str(ROOT / "docs"))
    yield importlib.import_module("pages")
    sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("repository", ["", "https://github.com/someone/asymlib"])
def test_links_outwards_follow_from_the_one_address(pages, monkeypatch, repository):
    monkeypatch.setattr(pages, "REPOSITORY", repository)
    monkeypatch.setattr(pages, "write", lambda *_: None)
    links = pages.ways_to(ROOT / "notebooks" / "00_start_here.ipynb")
    assert "../_static/00_start_here.ipynb" in links
    assert (
        ("mybinder.org/v2/gh/someone/asymlib/main" in links)
        == ("colab.research.google.com/github/someone" in links)
        == (f"git clone --depth 1 {repository} asymlib " in links)
        == bool(repository)
    )


def test_the_readme_names_no_address_but_the_one_of_the_project(pages):
    """While it is empty no badge or link needs it; once it is there, the README's badges for tests and site are its own."""
    readme = (ROOT / "README.md").read_text()
    assert ("/actions/" in readme) == bool(pages.REPOSITORY) and pages.REPOSITORY in readme
    assert re.findall(r"https://github\.com/[^/\s)]+/[^/\s)]+", readme) == [pages.REPOSITORY] * readme.count(
        "https://github.com/"
    )


def test_the_results_page_is_light_and_short(site, served, page):
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.goto(served + "results.html")
    assert page.evaluate("document.documentElement.scrollHeight") < 8000
    sources = page.evaluate("[...document.images].map((image) => new URL(image.src).pathname)")
    assert len(sources) > 10
    assert sum((site / path.lstrip("/")).stat().st_size for path in {*sources, "results.html"}) < 2_000_000


def test_formulas_are_drawn(served, page):
    """As MathML with the bundled font, wide enough to be more than a line of characters."""
    page.goto(served + "methods/asymgrpo.html")
    boxes = [box.bounding_box() for box in page.locator("div.math mfrac").all()]
    assert len(boxes) >= 2 and all(box["height"] > 20 for box in boxes)
    page.evaluate("document.fonts.ready")
    assert page.evaluate("""document.fonts.check('16px "STIX Two Math"')""")
