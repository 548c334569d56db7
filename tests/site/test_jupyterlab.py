"""JupyterLab as a reader uses it: it starts, opens the first notebook in a real browser and runs all of it."""

import time

import nbformat
import pytest
from playwright.sync_api import expect

START_SECONDS, RUN_SECONDS = 90, 600


@pytest.mark.slow
def test_start_here_runs_in_jupyterlab(lab, browser):
    address, notebooks = lab
    path = notebooks / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # so that what is found afterwards was made by this run
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)

    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(address.replace("/lab?", "/lab/tree/00_start_here.ipynb?"))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=1000 * START_SECONDS)
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=1000 * START_SECONDS)  # before, cells cannot be run
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    deadline = time.monotonic() + RUN_SECONDS
    while not _code_cells(path)[-1].execution_count:  # from the file: the page draws only the cells in sight
        assert time.monotonic() < deadline, [cell.execution_count for cell in _code_cells(path)]
        page.wait_for_timeout(1000)
        page.keyboard.press("Control+s")
    page.get_by_text("(ipykernel) | Idle").wait_for()  # the last cell's outputs are there
    page.keyboard.press("Control+s")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0, timeout=30_000)
    context.close()

    ran = _code_cells(path)
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not any(output.output_type == "error" for cell in ran for output in cell.outputs)
    assert sum("image/png" in output.get("data", {}) for cell in ran for output in cell.outputs) >= 2


def _code_cells(path, attempts=20):
    for attempt in range(attempts):
        try:
            return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        except nbformat.reader.NotJSONError:  # JupyterLab is writing it
            if attempt == attempts - 1:
                raise
            time.sleep(0.2)
