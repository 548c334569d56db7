"""A finished record that is damaged is data all the same: the run that replaces it moves it, and the hint says so."""

import sys

import pytest
import sums

from asymlib import load_runs
from asymlib.cli.main import main


def change_done(folder):
    (folder / "done.json").write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [
        change_done,
        lambda folder: (folder / "done.json").unlink(),
        lambda folder: (folder / "metrics.parquet").write_bytes(b"PAR1"),
        lambda folder: [(folder / "spec.json").unlink(), (folder / "spec.json").mkdir()],
        lambda folder: (folder / "evaluation.json").unlink(),
    ],
    ids=["done.json", "no done.json", "metrics", "a folder for a spec", "no evaluation"],
)
def test_a_damaged_finished_record_is_set_aside_by_the_run_that_replaces_it(tmp_path, damage):
    record = sums.run(tmp_path)
    damage(record.folder)
    left = {path.name: path.is_file() and path.read_bytes() for path in record.folder.iterdir() if path.name != ".lock"}
    with pytest.warns(UserWarning, match="is no result .*set-aside.* the run starts anew"):
        assert sums.run(tmp_path, quiet=False).is_done
    [aside] = tmp_path.glob("set-aside/*/quick/runs/*")
    assert {path.name: path.is_file() and path.read_bytes() for path in aside.iterdir()} == left
    assert sums.differs(tmp_path) is None and len(load_runs(tmp_path)) == 1


def test_the_hint_of_a_damaged_record_says_that_it_is_set_aside(tmp_path, monkeypatch, capsys):
    damaged = sums.run(tmp_path)
    change_done(damaged.folder)
    monkeypatch.setattr(sys, "argv", ["asymlib", "compare", damaged.folder.name, "grpo", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "is no result (done.json cannot be read)" in capsys.readouterr().err
