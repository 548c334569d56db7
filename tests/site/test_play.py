"""What is live in JupyterLab, in a real browser: the explorer computes, the training starts and stops by its buttons."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 90, 240


@pytest.mark.slow
def test_the_explorer_and_the_live_training_work_in_jupyterlab(lab, browser):
    address, notebooks = lab
    path = shutil.copy(ROOT / "notebooks" / "03_play.ipynb", notebooks)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # so that what is seen was made by this run
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)

    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(1000 * START_SECONDS)
    with page.expect_websocket(lambda socket: "/channels" in socket.url):  # to the kernel
        page.goto(address.replace("/lab?", "/lab/tree/03_play.ipynb?"))
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    widget = page.locator(".jupyter-widgets.widget-vbox").last
    widget.get_by_role("button", name="Start / go on").click(timeout=1000 * RUN_SECONDS)
    widget.get_by_text(re.compile(r"running, step \d+")).wait_for()
    assert widget.locator("svg[role=img]").count() == 2
    assert widget.get_by_text(re.compile("^. (right|wrong)$")).count() == 8
    widget.get_by_role("button", name="Stop").click()
    widget.get_by_text(re.compile(r"stopped, step \d+")).wait_for()

    page.locator(".asymlib-explorer input[name=beta_pos]").fill("0.5")
    page.locator(".asymlib-explorer input[name=beta_neg]").fill("0.5")
    assert "This is GRPO" in page.locator(".asymlib-explorer .result").inner_text()
    page.close()
