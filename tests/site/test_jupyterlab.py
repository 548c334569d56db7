"""JupyterLab as a reader uses it: it opens a notebook in a real browser, runs all of it, and what is live there works."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.reader import NotJSONError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 90, 240


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on a port of localhost over a copy of the notebooks; gives its address with token, and the copy's folder."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for name in ("00_start_here", "03_play"):
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", notebooks)
    shutil.copytree(ROOT / "results" / "warmup", tmp_path / "results" / "warmup")
    settings = {
        "JUPYTER_CONFIG_DIR": tmp_path / "config",
        "ASYMLIB_RESULTS": tmp_path / "results",
        "IPYTHONDIR": tmp_path / "ipython",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip", "127.0.0.1", "--port", "0", "--allow-root"]
    command += ["--notebook-dir", str(notebooks)]
    environment = os.environ | {name: str(tmp_path / folder) for name, folder in settings.items()}
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        timer = threading.Timer(START_SECONDS, server.kill)
        timer.start()
        lines = []
        for line in server.stderr:
            lines.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", line):
                break
        else:
            pytest.fail("JupyterLab did not start:\n" + "".join(lines[-20:]))
        timer.cancel()
        threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop the server
        yield address[0], notebooks
    finally:
        server.terminate()
        server.wait(20)


def saved_cells(path: Path) -> list:
    """The code cells as last saved; none while the server is writing them."""
    try:
        return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    except NotJSONError:
        return []


def ended(cells: list) -> bool:
    """The last cell has run, with its picture, or one has failed."""
    pictured = cells and any("image/png" in output.get("data", {}) for output in cells[-1].outputs)
    return pictured or any(output.output_type == "error" for cell in cells for output in cell.outputs)


@contextlib.contextmanager
def run_all(browser, lab, name: str):
    """The page of a notebook after Run All Cells in it, and its path."""
    address, notebooks = lab
    path = notebooks / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # so that what is found afterwards was made by this run
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)

    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(1000 * START_SECONDS)
    with page.expect_websocket(lambda socket: "/channels" in socket.url):  # to the kernel
        page.goto(address.replace("/lab?", f"/lab/tree/{name}.ipynb?"))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    yield page, path
    context.close()


@pytest.mark.slow
def test_start_here_runs_in_jupyterlab(lab, browser):
    with run_all(browser, lab, "00_start_here") as (page, path):
        deadline = time.monotonic() + RUN_SECONDS
        while not ended(ran := saved_cells(path)):  # cells out of sight are not in the page: the saved file tells what was run
            assert time.monotonic() < deadline, [cell.execution_count for cell in ran]
            page.wait_for_timeout(1500)
            page.keyboard.press("Control+s")
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not any(output.output_type == "error" for cell in ran for output in cell.outputs)
    assert sum("image/png" in output.get("data", {}) for cell in ran for output in cell.outputs) >= 2


@pytest.mark.slow
def test_the_explorer_and_the_live_training_work_in_jupyterlab(lab, browser):
    with run_all(browser, lab, "03_play") as (page, path):
        cells = len([cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"])
        page.locator(".jp-InputPrompt", has_text=f"[{cells}]:").wait_for(timeout=1000 * RUN_SECONDS, state="attached")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(timeout=1000 * RUN_SECONDS)
        page.locator(".asymlib-explorer input[name=beta_pos]").fill("0.5")
        page.locator(".asymlib-explorer input[name=beta_neg]").fill("0.5")
        assert "This is GRPO" in page.locator(".asymlib-explorer .result").inner_text()

        widget = page.locator(".jupyter-widgets.widget-vbox").last
        widget.get_by_role("button", name="Start / go on").click()
        widget.get_by_text(re.compile(r"running, step \d+")).wait_for()
        assert widget.locator("svg[role=img]").count() == 2
        assert widget.get_by_text(re.compile("^. (right|wrong)$")).count() == 8
        widget.get_by_role("button", name="Stop").click()
        widget.get_by_text(re.compile(r"stopped, step \d+")).wait_for()
