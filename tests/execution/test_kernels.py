"""JupyterLab, VS Code and papermill find one kernel: the environment's own `python3`, which ipykernel brings."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager, start_new_kernel

import asymlib
from asymlib import RunRecord

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_the_kernel_of_this_environment(path):
    name = nbformat.read(path, as_version=4).metadata.kernelspec.name
    assert Path(KernelSpecManager().get_kernel_spec(name).resource_dir).is_relative_to(sys.prefix)
    assert KernelManager(kernel_name=name).format_kernel_cmd()[0] == sys.executable


def test_that_kernel_runs_this_python_and_imports_this_asymlib():
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        said = []
        program = "import sys, asymlib; print(sys.executable, asymlib.__file__)"
        client.execute_interactive(program, timeout=120, output_hook=lambda m: said.append(m["content"].get("text", "")))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "".join(said).split() == [sys.executable, asymlib.__file__]


def test_jupyter_lists_it():
    command = [sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert Path(listed["kernelspecs"]["python3"]["resource_dir"]).is_relative_to(sys.prefix)


def test_vs_code_takes_the_environment_that_make_sets_up():
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text())
    assert settings["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_plain_papermill_runs_a_notebook_from_any_folder(tmp_path, cheap_results):
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    parameters = ["-p", "steps", "5", "-p", "results", str(cheap_results)]
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", *parameters]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata.papermill.exception is None
    [folder] = (cheap_results / "quick" / "runs").iterdir()
    assert RunRecord(folder).is_done and len(RunRecord(folder).metrics) == 5
