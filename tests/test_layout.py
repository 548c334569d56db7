"""Who may know whom, how large a file and a function may be, and what importing asymlib costs."""

import ast
import statistics
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import asymlib

PACKAGE = Path(asymlib.__file__).parent
CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
# Each line may import only lines above it; CONTRIBUTING.md shows the same list.
ROOMS = (
    "support",
    "advantages",
    "flips",
    "related",
    "covariance",
    "methods",
    "paper",
    "runs",
    "analysis",
    "lab",
    "evaluation",
    "verl",
    "trl",
    "execution",
    "interactive",
    "cli",
)
APART = ("lab", "evaluation", "verl", "trl")  # verl may use evaluation; beyond that they meet in the records only
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, LONGEST_FUNCTION, MEDIAN_FUNCTION = 300, 50, 6


def module_of(path: Path) -> str:
    """'lab.step' for asymlib/lab/step.py, 'lab' for its __init__.py, '' for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported_modules(path: Path) -> set[str]:
    """The modules of asymlib that a file imports anywhere in it, inside functions too."""
    package = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["asymlib", *package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "asymlib":
                name = name.removeprefix("asymlib").lstrip(".")
                found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_room_is_in_the_list_and_the_list_in_contributing():
    assert {room(module) for module in MODULES} - {"", "__main__"} == set(ROOMS)
    places = [CONTRIBUTING.index(f"`{name}.py`" if f"{name}.py" in CONTRIBUTING else f"`{name}/`") for name in ROOMS]
    assert places == sorted(places)


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path) or "asymlib")
def test_a_module_imports_only_rooms_above_its_own(path):
    own = room(module_of(path))
    if own in ("", "__main__"):  # the package's own names come from anywhere
        return
    allowed = {*ROOMS[: ROOMS.index(own)], own}
    if own in APART:
        allowed -= {"lab"} - {own}
    if own == "trl":
        allowed -= {"analysis", "evaluation", "verl"}
    assert {room(module) for module in imported_modules(path)} <= allowed


def test_no_imports_run_in_a_circle():
    graph = {module: imported_modules(path) - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_these_checks_see_imports(tmp_path):
    assert {"lab.trainer", "runs.records"} <= imported_modules(PACKAGE / "execution" / "running.py")
    assert {"advantages", "runs.spec", "lab.policy"} <= imported_modules(PACKAGE / "lab" / "step.py")


def test_files_and_functions_are_short():
    long_files = {
        module: lines for module, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > MOST_LINES
    }
    lengths = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not long_files
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION, statistics.median(lengths.values())


@pytest.mark.parametrize("name", [name for name in ROOMS if (PACKAGE / name).is_dir()])
def test_a_room_says_what_lives_there(name):
    assert ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())).count(".") >= 2


def test_importing_asymlib_loads_no_engine():
    program = (
        "import sys, asymlib, asymlib.analysis.statistics, asymlib.execution.batch; "
        "print(*{'torch', 'verl', 'transformers', 'papermill', 'ray', 'vllm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_names_exist_once():
    assert len(asymlib.__all__) == len(set(asymlib.__all__))
    assert all(getattr(asymlib, name).__doc__ for name in asymlib.__all__ if name not in ("METHODS", "RELATED"))
    promised = {
        "positive_advantage", "negative_advantage", "flipped_positive", "flipped_negative", "METHODS", "get_method", "Method",
        "group_advantages", "length_normalized_log_prob", "group_covariance", "covariance_by_accuracy", "ExperimentSpec",
        "run_experiment", "RunRecord", "load_runs",
    }  # fmt: skip
    assert promised <= set(asymlib.__all__)
