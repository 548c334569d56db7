"""Notebook 11 without a checkpoint: what is given is kept, what is wrong is refused."""

import json
from pathlib import Path

import papermill
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "11_evaluate.ipynb"


def execute(folder: Path, **parameters) -> None:
    papermill.execute_notebook(NOTEBOOK, folder / "out.ipynb", parameters, cwd=NOTEBOOK.parent, progress_bar=False)


def test_given_parameters_are_kept(tmp_path):
    execute(tmp_path, benchmarks=["walk-3"], samples=2, response_tokens=7, output=str(tmp_path / "out"))
    (entry,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    settings = json.loads((tmp_path / "out" / "walk-3.jsonl").read_text().splitlines()[0])
    assert (entry["benchmark"], entry["samples"], settings["response_tokens"]) == ("walk-3", 2, 7)


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="samples=0: must be a whole number of at least 1"):
        execute(tmp_path, samples=0, output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
