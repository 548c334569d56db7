"""The site, built once, and a headless Chromium; a page that says anything on its console fails its test."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
JUPYTER_SECONDS = 90  # JupyterLab's start on a busy machine
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium or Chrome. Without one the tests are skipped, or fail where $ASYMLIB_BROWSER is 'required'."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        refuse = pytest.fail if os.environ.get("ASYMLIB_BROWSER") == "required" else pytest.skip
        refuse(f"no browser: install Chromium ({', '.join(NAMES)} on the PATH) or name it in $CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def open_fragment(browser, tmp_path_factory):
    """open_fragment(html, width=...) -> the page that shows a fragment alone, from a file and with no network."""
    context, complaints = browser.new_context(offline=True), []

    def open_(html: str, width: int = 1200):
        path = tmp_path_factory.mktemp("page") / "page.html"
        path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>test</title><body>{html}</body></html>')
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_
    context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the site, built as `make site` builds it: from nothing, warnings being errors."""
    base, in_workers = tmp_path_factory.getbasetemp(), "PYTEST_XDIST_WORKER" in os.environ
    html = (base.parent if in_workers else base) / "site" / "html"  # one for all workers of the session
    with FileLock(f"{html.parent}.lock"):
        if not html.exists():
            command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(html)]
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if built.returncode:
                shutil.rmtree(html, ignore_errors=True)
            assert built.returncode == 0, built.stderr[-3000:]
    return html


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def served(site):
    """The address of the site on a port of localhost."""
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


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
        timer = threading.Timer(JUPYTER_SECONDS, server.kill)
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
