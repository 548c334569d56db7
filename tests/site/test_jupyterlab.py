"""JupyterLab as a reader uses it: it starts, opens the first notebook in a real browser and runs all of it."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 90, 240


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on a port of localhost over a copy of the notebooks; gives its address with token, and the copy's folder."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", notebooks)
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
    running = page.locator(".jp-InputPrompt", has_text="[*]:")  # of the cells in sight, the last one among them
    running.first.wait_for(state="attached")
    expect(running).to_have_count(0, timeout=1000 * RUN_SECONDS)
    page.keyboard.press("Control+s")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0, timeout=30_000)
    context.close()

    ran = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not any(output.output_type == "error" for cell in ran for output in cell.outputs)
    assert sum("image/png" in output.get("data", {}) for cell in ran for output in cell.outputs) >= 2
