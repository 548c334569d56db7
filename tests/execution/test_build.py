"""`asymlib build`: a notebook draws the records that a profile has, or is left out with one line that says what it lacks."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from command_line import asymlib

from asymlib.evaluation.sets import DATASETS
from asymlib.execution.notebooks import build, notebooks_of
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import run_folder
from asymlib.runs.writer import RunWriter

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SETS = {name: (min(source.rows, 40), source.samples) for name, source in DATASETS.items() if source.samples}


def write_synthetic_record(spec, results: Path) -> None:
    """Random numbers in the form that verl's trainer leaves: no evaluation of the last policy, and all that it does not measure
    is absent. Its provenance says that it is synthetic."""
    random = np.random.default_rng(int(spec.run_id, 16))
    writer = RunWriter(spec, run_folder(spec, results))
    writer.note(synthetic="random numbers of a test, no run")
    for step in range(1, spec.steps + 1):
        names = ("reward", "entropy", "all_solved", "none_solved", "clip_fraction", "grad_norm", "rollout_log_prob_gap")
        line = {"step": step, "tokens": 1000} | dict(zip(names, random.random(len(names)).tolist(), strict=True))
        line["log_prob_increment_pos"] = random.random() if step % 5 == 0 else None
        if step % spec.validation_every == 0:
            accuracies = {f"val_acc/{name}": random.random() for name in SETS}
            line |= accuracies | {"val_acc": sum(accuracies.values()) / len(accuracies)}
        writer.log(line)
    common = {"checkpoint": "best", "step": spec.steps, "temperature": 0.4}
    evaluation = [
        {"benchmark": name, "samples": samples, "correct": random.integers(0, samples + 1, problems).tolist()} | common
        for name, (problems, samples) in SETS.items()
    ]
    accuracies = [k / 8 for k in range(9) if k != 7]  # as of a short run, in which no group has seven of eight right
    accuracy = np.tile(accuracies, 40)
    covariance = pd.DataFrame({"step": np.repeat(np.arange(1, 41), len(accuracies)), "accuracy": accuracy})
    writer.finish(evaluation, covariance.assign(covariance=random.normal(size=len(covariance)) * accuracy * (1 - accuracy)))


def h100_specs(*sections: str) -> list:
    specs = {s.run_id: s for name in sections for s in load_matrix(NOTEBOOKS / "experiments" / f"h100_{name}.yaml")}
    return list(specs.values())


def said_in_build(profile: str, results: Path, sources=None) -> dict[str, str]:
    """What `build` reports of each notebook; nothing failed."""
    said = {}
    failures = build(profile, sources or notebooks_of(profile, NOTEBOOKS), results, jobs=2, report=said.__setitem__)
    assert failures == {}
    return {name.split("_")[0]: message for name, message in said.items()}


@pytest.mark.slow
def test_records_of_the_whole_h100_matrix_feed_every_notebook(tmp_path):
    specs = h100_specs("section3", "section3_sweeps", "section4")
    assert len(specs) == 34
    for spec in specs:
        write_synthetic_record(spec, tmp_path)
    said = said_in_build("h100", tmp_path)
    left_out = {name: message for name, message in said.items() if message and not message.startswith("built; ")}
    lacking = {
        name: re.search(r"left out: profile '(\w+)' has no finished run yet in ", text)[1] for name, text in left_out.items()
    }
    assert lacking == {"04": "related", "35": "tuning", "36": "long"}
    drawn = {path.stem for path in (tmp_path / "h100" / "figures").glob("*.png")}
    assert drawn >= {"figure2", "figure2_sweeps", "figure3", "figure4", "figure5", "beta_plane", "table1_lab", "one_look"}
    assert "figure2_Qwen3-4B" in drawn and "disagreement_start" not in drawn


@pytest.mark.slow
def test_two_records_feed_what_they_can_and_the_rest_says_what_is_missing(tmp_path, finished_run):
    """As after two runs of one's own: no raw error, and each notebook that is left out names methods or records."""
    for method in ("grpo", "asymgrpo"):
        finished_run(results=tmp_path, method=method)
    sources = [path for path in notebooks_of("quick", NOTEBOOKS) if path.name[0] in "23" or path.name.startswith("02")]
    said = said_in_build("quick", tmp_path, sources)
    left_out = {name: message for name, message in said.items() if message and not message.startswith("built; ")}
    assert set(left_out) >= {"35", "36"} and {"02", "22", "24", "30", "32", "33"} <= set(said) - set(left_out)
    assert re.fullmatch("built; small: drawn, has no runs of .*grpo_clip_higher.*", said["22"])
    assert all(message.startswith(("left out: no finished run of ", "left out: profile ")) for message in left_out.values())


def test_a_notebook_without_records_is_no_failure_of_the_build(tmp_path):
    """Nothing to draw is reported and ends with status 0; another error fails the build."""
    (tmp_path / "results" / "quick" / "runs").mkdir(parents=True)
    (tmp_path / "books").mkdir()
    sources = {
        "20_none": "from asymlib.analysis.selection import load_comparable\nload_comparable(profile, results)",
        "21_broken": "raise KeyError('grpo')",
        "22_other": "results",
        "23_some": "print(profile, 'small: drawn, has no runs of pos_only', sep='\\n')",
    }
    for name, source in sources.items():
        given = "results = None" if name == "22_other" else "profile = 'lab'\nresults = None"
        cells = [nbformat.v4.new_code_cell(given, metadata={"tags": ["parameters"]})]
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        metadata = {"kernelspec": kernel, "asymlib": {"profiles": ["all"]}}
        notebook = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(source)], metadata=metadata)
        nbformat.write(notebook, tmp_path / "books" / f"{name}.ipynb")
    both = asymlib("build", "quick", "--notebooks", "books", folder=tmp_path)
    assert both.returncode == 1
    assert "20_none.ipynb: left out: profile 'quick' has no finished run yet" in " ".join(both.stdout.split())
    assert "21_broken.ipynb: KeyError: 'grpo'" in " ".join(both.stdout.split())
    assert "22_other.ipynb: built" in both.stdout and "unknown parameter" not in both.stdout + both.stderr
    assert "23_some.ipynb: built; small: drawn, has no runs of pos_only" in " ".join(both.stdout.split())
    (tmp_path / "books" / "21_broken.ipynb").unlink()
    assert asymlib("build", "quick", "--notebooks", "books", folder=tmp_path).returncode == 0
