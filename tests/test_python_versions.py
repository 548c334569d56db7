"""Today's Pythons: the light part (maths, records, plots) works; what needs torch or verl says so in one sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHT_PART = """
import sys
from asymlib import get_method, group_advantages, load_runs
from asymlib.analysis.measures import measure_runs
from asymlib.analysis.figures import plt, use_style
from asymlib.analysis.panels import plot_curves
from asymlib.runs.records import gather
print(group_advantages([1, 0, 0, 0], list("aaaa"), get_method("grpo")).round(3).tolist())
use_style()
runs = load_runs(sys.argv[1])
plot_curves(plt.figure().gca(), gather(runs, "metrics"), "entropy", ["grpo"])
plt.savefig(sys.argv[2])
print(len(runs), measure_runs(runs)["variant"].tolist())
"""


def python(version: str) -> str | None:
    """An interpreter of this version on the PATH or among pyenv's, other than ours."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return None
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for program in (shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))):
        if program and subprocess.run([program, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return program
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_light_part_installs_and_works(version, tmp_path):
    if (program := python(version)) is None:
        pytest.skip(f"there is no Python {version} on this machine")
    subprocess.run([program, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    source = shutil.copytree(ROOT / "asymlib", tmp_path / "source" / "asymlib").parent
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    installed = subprocess.run([binaries / "pip", "install", "--quiet", source], capture_output=True, text=True)
    if "NewConnectionError" in installed.stderr:
        pytest.skip("no package index can be reached")
    assert installed.returncode == 0, installed.stderr

    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ASYMLIB_RESULTS")}

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=clean | {"MPLBACKEND": "agg"}, capture_output=True, text=True)

    record = next((ROOT / "results" / "lab" / "runs").glob("*/done.json")).parent
    shutil.copytree(record, tmp_path / "results" / "lab" / "runs" / record.name)
    light = run(binaries / "python", "-c", LIGHT_PART, "results/lab", "curves.png")
    assert light.returncode == 0, light.stderr
    assert light.stdout.splitlines()[0] == "[1.732, -0.577, -0.577, -0.577]" and light.stdout.splitlines()[1].startswith("1 [")
    assert (tmp_path / "curves.png").stat().st_size > 1000

    refused = run(binaries / "asymlib", "run", "grpo", "--steps", "2", "--results", tmp_path / "new")
    assert refused.returncode == 2 and not (tmp_path / "new").exists()
    assert refused.stderr == "asymlib: this needs the package 'torch', which is not installed: pip install 'asymlib[lab]'\n"
    composed = run(binaries / "asymlib", "verl", "config", "grpo", "--policy", "Qwen/Qwen3-4B", "--resolved")
    assert composed.returncode == 2 and "pip install 'asymlib[verl]' on Python 3.11 or 3.12" in composed.stderr
