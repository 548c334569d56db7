"""`asymlib batch --rehearse` without training: one page a run, one of all, nothing done twice."""

from pathlib import Path

import pytest
from tiny_rehearsal import MEASURED
from typer import Exit

from asymlib.cli import rehearse as commands
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import run_folder
from asymlib.verl.rehearse import cut_data, project, shortened

MATRIX = Path(__file__).parents[2] / "notebooks" / "experiments" / "h100_section4.yaml"


@pytest.fixture
def rehearsed(monkeypatch):
    """The specs that were run, on a machine that seems to have GPUs; those in `broken` fail."""
    run, broken = [], set()

    def run_short(short, place, gpus):
        run.append(short)
        if short.method in broken:
            raise RuntimeError("verl ended with status 1")
        run_folder(short, place).mkdir(parents=True, exist_ok=True)
        return MEASURED | {"gpus": gpus}

    monkeypatch.setattr(commands, "_run", run_short)
    monkeypatch.setattr(commands, "_has_gpus", lambda: True)
    monkeypatch.setattr(commands.os, "environ", dict(commands.os.environ))
    monkeypatch.setattr(commands.rehearse, "cut_data", lambda source, target: None)
    return run, broken


def test_a_matrix_is_rehearsed_once_and_what_failed_is_tried_again(rehearsed, tmp_path, capsys):
    (run, broken), specs = rehearsed, load_matrix(MATRIX)
    broken.add("grpo")
    with pytest.raises(Exit):
        commands.rehearse_matrix(specs, "section4", tmp_path, 4, None)
    assert [short.method for short in run] == [spec.method for spec in specs]
    page = tmp_path / "rehearsal" / "section4.md"
    assert "13 runs, 1 failed" in page.read_text() and "verl ended with status 1" in capsys.readouterr().out
    broken.clear()
    commands.rehearse_matrix(specs, "section4", tmp_path, 4, None)
    assert [short.method for short in run[14:]] == ["grpo"] and "14 runs, 0 failed" in page.read_text()
    hours = sum(project(spec, shortened(spec, False), MEASURED, 3.0).hours for spec in specs)
    assert f"| all | | | | | {hours:.1f} |" in page.read_text()
    for spec in specs:
        assert spec.run_id in (run_folder(shortened(spec, False), tmp_path / "rehearsal") / "rehearsal.md").read_text()


def test_prepared_sets_are_cut_evenly_and_keep_their_answers_where_there_is_a_gpu(tmp_path):
    cut_data(tmp_path / "absent", tmp_path / "whole")
    (tmp_path / "whole" / "manifest.json").write_text("{}")
    assert cut_data(tmp_path / "whole", tmp_path / "cut") == "the prepared sets, cut"
    import pyarrow.parquet as pq

    whole, cut = (pq.read_table(tmp_path / name / "train.parquet").to_pylist() for name in ("whole", "cut"))
    assert cut == whole and len(pq.read_table(tmp_path / "cut" / "math-500.parquet")) == 4
