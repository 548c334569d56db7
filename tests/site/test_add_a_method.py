"""The steps of docs/add-a-method.md, taken from the page and done on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```(?:python|yaml)\n(.*?)```", (ROOT / "docs" / "add-a-method.md").read_text(), re.S)


def insert(path: Path, before: str, block: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{path.name}: {before!r} is there {text.count(before)} times"
    path.write_text(text.replace(before, block + before))


@pytest.fixture
def copy(tmp_path):
    """The package and its warm-up checkpoint in a folder with a commit, as a clone is."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "asymlib", tmp_path / "asymlib", ignore=ignore)
    shutil.copytree(ROOT / "results" / "warmup", tmp_path / "results" / "warmup")
    identity = ["-c", "user.name=reader", "-c", "user.email=reader@localhost"]
    for command in (["init", "-q"], ["add", "asymlib"], [*identity, "commit", "-qm", "a clone"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "ASYMLIB_RESULTS": str(folder / "results")}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_does_what_it_says(copy):
    row, use, curve, entry = BLOCKS
    methods, advantages = copy / "asymlib" / "methods.py", copy / "asymlib" / "advantages.py"
    table = copy / "asymlib" / "methods.yaml"
    table.write_text(table.read_text() + row)
    use = use.replace('get_method("mirrored").table(8)', 'print(get_method("mirrored").table(8)[0].round(3).tolist())')
    assert run(copy, "-c", use).startswith("[0.0, 2.178, 1.552, ")
    assert "mirrored, seed 0): done" in run(copy, "-m", "asymlib", "run", "mirrored", "--steps", "2", "--plain")
    looks = "from asymlib.analysis.looks import label, look; print(label('mirrored'), look('mirrored') != look('asymgrpo'))"
    assert run(copy, "-c", looks) == "AsymGRPO mirrored True\n"

    insert(advantages, "def mean_baseline_table", curve + "\n\n")
    insert(methods, '    "pass_at_k": Curve(', entry)
    insert(methods, "mean_baseline_table, pass_at_k_table\n", "linear_table, ")
    table.write_text(table.read_text().replace("source: our idea, beta", "source: our idea, curve: linear, beta"))
    assert run(copy, "-c", use).startswith("[0.0, 1.15, 1.1, ")
