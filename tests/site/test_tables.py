"""Tables of the built site, on a screen and on a phone."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WIDTHS = (1400, 390)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["results", "claims", "methods/asymgrpo"])
def test_no_column_of_a_table_is_hidden(served, browser, name, width):
    """With every fold open, no sortable table is wider than its place."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{served}{name}.html")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    wide = page.evaluate(
        """[...document.querySelectorAll('table.sortable')].filter((t) => t.scrollWidth > t.parentElement.clientWidth + 1)
            .map((t) => `${t.rows[0].textContent}: ${t.scrollWidth} > ${t.parentElement.clientWidth}`)"""
    )
    page.close()
    assert wide == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_notebook_s_table_fits_and_a_phone_names_every_value(served, browser, width):
    page, faults = browser.new_page(viewport={"width": width, "height": 900}), []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page.goto(f"{served}notebooks/{path.stem}.html")
        faults += page.evaluate(
            """[...document.querySelectorAll('.cell_output table.dataframe')]
                .filter((t) => t.scrollWidth > t.parentElement.clientWidth + 1)
                .map((t) => `${location.pathname}: ${t.rows[0].textContent} is ${t.scrollWidth} wide`)"""
        )
    assert faults == []
    page.goto(f"{served}notebooks/30_table1.html")  # columns of two levels, and policies that span rows
    table = page.locator("table.dataframe", has_text="AsymGRPO").first
    heads = table.evaluate("(t) => [...t.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.dataset.name).join())")
    assert len(set(heads)) == 1 and "policy" in heads[0]
    repeated = table.locator("th.repeated")
    assert repeated.count() > 10 and repeated.first.is_visible() == (width < 600)
    page.close()
