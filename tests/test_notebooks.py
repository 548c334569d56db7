"""What nbval does not see: the notebooks' form, and that README and committed tables agree."""

import ast
import importlib.util
import re
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from PIL import Image

from asymlib import METHODS, RELATED
from asymlib.analysis.claims import CLAIMS
from asymlib.analysis.figures import WIDTH

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    """Kernel python3, executed top to bottom without error or stderr, short cells, no shell cells (a failing one passes)."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith("# ")
    assert "widgets" not in notebook.metadata  # with a stored state the site would fetch scripts from elsewhere
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "parameters" in code[0].metadata.get("tags", [])
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert len(cell.source.splitlines()) <= 20
        assert not any(line.lstrip().startswith("!") for line in cell.source.splitlines())
        assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_exists(path):
    """Nobody who searches the package's *.py for a name sees that a notebook needs it."""
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("%"))
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "asymlib":
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), f"{node.module}.{name}"


def test_the_grid_of_relatives_takes_one_more(monkeypatch):
    cells = {cell.id: cell.source for cell in nbformat.read(ROOT / "notebooks" / "04_relatives.ipynb", as_version=4).cells}
    monkeypatch.setattr("asymlib.RELATED", {**RELATED, "grpo": METHODS["grpo"]})
    monkeypatch.setattr("asymlib.analysis.figures.save_figure", lambda *_: None)
    names = {}
    exec("\n".join(cells[f"relatives-{number}"] for number in ("01", "03", "05", "06")), names)
    drawn = [ax.axison for ax in names["axes"].flat]
    assert drawn == [True] * (len(RELATED) + 2) + [False] * (-(len(RELATED) + 2) % 5)
    names["plt"].close()


SIGNS = {
    ("holds", "holds"): "✓",
    ("holds", "undecided"): "(✓)",
    ("does not hold", "does not hold"): "✗",
    ("does not hold", "undecided"): "(✗)",
    ("undecided", "undecided"): "·",
    ("alike", "alike"): "≈",
    ("alike", "undecided"): "(≈)",
}


def test_readme_has_the_verdicts_of_the_committed_records():
    tables = ROOT / "results" / "lab" / "tables"
    verdicts = pd.read_csv(tables / "claims.csv").set_index(["claim", "text"])
    long, decisive, countdown, larger = (
        pd.read_csv(tables / f"{name}_claims.csv").set_index("claim")[["verdict", "after Holm"]]
        for name in ("long_runs", "decisive", "countdown", "scale")
    )
    larger = larger.drop("C10")  # only its first half is judged there
    readme = (ROOT / "README.md").read_text()
    assert set(long.index) >= {"C3", "C5", "C11", "C12"}
    assert set(decisive.index) >= {"C2", "C3", "C4", "C5", "C7", "C8"}
    assert set(countdown.index) >= {claim.id for claim in CLAIMS}
    assert set(larger.index) == {claim.id for claim in CLAIMS} - {"C1", "C6", "C10"}
    headline = CLAIMS[-1]  # of the second study only
    signs = [SIGNS[tuple(table.loc[headline.id])] for table in (larger, countdown)]
    assert f"| {headline.id} | {headline.text} |  |  | {signs[0]} |  |  | {signs[1]} |\n" in readme
    later = (larger, long, decisive, countdown)
    for (claim, text), (small, small_holm, base, base_holm) in verdicts.iterrows():
        signs = [SIGNS[small, small_holm], SIGNS[base, base_holm]]
        signs += [SIGNS[tuple(table.loc[claim])] if claim in table.index else "" for table in later]
        assert f"| {claim} | {text} | {' | '.join(signs)} |\n" in readme


def test_readme_is_short_and_links_every_notebook():
    readme = (ROOT / "README.md").read_text()
    words = re.sub(r"\]\([^)]*\)|\|", " ", re.sub(r"```bibtex.*?```", "", readme, flags=re.DOTALL)).split()
    assert len(words) <= 900
    missing = [path.name for path in (ROOT / "notebooks").glob("*.ipynb") if f"(notebooks/{path.name})" not in readme]
    assert not missing


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize(
    "name",
    [
        "figure1ab",
        "figure1c",
        "figure2",
        "figure2_sweeps",
        "figure3",
        "figure4",
        "figure5",
        "figure5_sets",
        "beta_plane",
        "table1_lab",
        "claims",
        "claims_contrasts",
        "table1_resolution",
        "disagreement_difficulty",
        "disagreement_start",
        "disagreement_samples",
        "disagreement_steps",
        "disagreement_clip",
        "disagreement_group_size",
        "tuned",
        "long_runs",
        "boundary",
        "boundary_countdown",
        "countdown",
        "countdown_claims",
        "countdown_table1",
        "rates",
        "schedule",
        "temperatures",
        "schedule_betas",
        "one_look",
        "relatives_at_g8",
        "relatives_focus",
        "relatives_weights",
        "relatives_map",
        "relatives_rewards",
        "relatives_lab",
    ],
)
def test_every_figure_of_the_paper_is_committed(name, suffix):
    assert (ROOT / "results" / "lab" / "figures" / f"{name}.{suffix}").stat().st_size > 10_000


FIGURES = sorted((ROOT / "results" / "lab" / "figures").glob("*"))


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.name)
def test_a_figure_is_light_and_its_text_is_read_at_the_width_of_a_page(path):
    """At 10 inches, the site's column, text of 10 points has 10; GitHub shows it at 9."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            assert picture.width <= 200 * WIDTH
    assert path.stat().st_size < 600_000 if path.suffix == ".png" else path.stat().st_size < 500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_text_in_a_figure_has_less_than_nine_points(path):
    """So that it has eight on GitHub; the style's own sizes are ten and more."""
    assert not re.search(r'fontsize=([0-8]\b|\\"(x+-)?small)', path.read_text())


def test_results_stay_light():
    """A clone fetches all of it, and each rebuild of a figure that changed adds to history."""
    listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True)
    sizes = {path: path.stat().st_size for name in listed.stdout.split("\0") if name and (path := ROOT / name).exists()}
    if not sizes:
        pytest.skip("no git checkout")
    assert sum(sizes.values()) < 125e6
    assert sum(size for path, size in sizes.items() if path.parent.name == "figures") < 16e6
