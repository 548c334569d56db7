"""Who may know whom, and what importing asymlib costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asymlib

PACKAGE = Path(asymlib.__file__).parent
ENGINES = ("lab", "verl")
# Each module may import only those before it; a module that is not listed may import anything but the other engine.
ORDER = ("validation", "advantages", "flips", "covariance", "methods", "experiment", "records")
READERS = ("statistics", "claims", "plotting", "compare")  # read records, know no engine


def imported_modules(path: Path) -> set[str]:
    """asymlib modules that a file imports anywhere in it, as dotted names below asymlib: 'lab.task', 'records'."""
    package = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["asymlib", *package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name.removeprefix("asymlib.") for name in names if name.startswith("asymlib.")}
    return found


def rooms(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


@pytest.mark.parametrize("module", ORDER)
def test_a_module_knows_only_those_before_it(module):
    modules = {p.stem for p in PACKAGE.glob("*.py")} | set(ENGINES)
    assert rooms(PACKAGE / f"{module}.py") & modules <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [m for m in READERS if (PACKAGE / f"{m}.py").exists()])
def test_what_reads_records_knows_no_engine(module):
    assert not rooms(PACKAGE / f"{module}.py") & {*ENGINES, "running", "batch", "cli"}


def test_the_engines_do_not_know_each_other():
    for engine, other in (ENGINES, ENGINES[::-1]):
        for path in (PACKAGE / engine).glob("**/*.py"):
            assert other not in rooms(path), path.name
            assert not rooms(path) & {"batch", "cli", "running"} or engine == "verl", path.name


def test_this_check_sees_imports():
    assert {"lab", "records"} <= rooms(PACKAGE / "running.py")
    assert {"advantages", "records", "lab"} <= rooms(PACKAGE / "lab" / "step.py")


def test_importing_asymlib_loads_no_engine():
    program = (
        "import sys, asymlib, asymlib.statistics, asymlib.batch; "
        "print(*{'torch', 'verl', 'transformers', 'papermill', 'ray', 'vllm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_names_exist_once():
    assert len(asymlib.__all__) == len(set(asymlib.__all__))
    assert all(getattr(asymlib, name).__doc__ for name in asymlib.__all__ if name != "METHODS")
    promised = {
        "positive_advantage", "negative_advantage", "flipped_positive", "flipped_negative", "METHODS", "get_method", "Method",
        "group_advantages", "length_normalized_log_prob", "group_covariance", "covariance_by_accuracy", "ExperimentSpec",
        "run_experiment", "RunRecord", "load_runs",
    }  # fmt: skip
    assert promised <= set(asymlib.__all__)
