"""`asymlib data prepare` as a user types it, and the real sets where somebody put them."""

import json
import os
from pathlib import Path

import command_line
import pandas as pd
import pyarrow.parquet as pq
import pytest

from asymlib.evaluation import data
from asymlib.evaluation.data import prepare


def asymlib(*arguments, folder: Path, **environment):
    """The command where the hub cannot be reached and nothing is cached."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")} | environment
    return command_line.asymlib(*arguments, folder=folder, env=environment)


def test_the_command_prepares_prints_licences_and_verifies(copies, tmp_path):
    done = asymlib("data", "prepare", "--from", copies, folder=tmp_path, ASYMLIB_DATA="here")
    assert done.returncode == 0, done.stderr
    assert "train: 7497 of 7500 problems, local train.jsonl, sha256 " in done.stdout and "; licence: MIT" in done.stdout
    assert "olympiadbench: 674 of 674 problems" in done.stdout and "CC BY-NC 4.0" in done.stdout
    assert "3 training problems dropped" in done.stdout
    assert len(pd.read_parquet(tmp_path / "here" / "train.parquet")) == 7497
    again = asymlib("data", "prepare", "--folder", "here", folder=tmp_path)
    assert again.returncode == 0 and "nothing to do" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "prepare"], "put copies of the sets, with the hub's columns, into one folder as train.jsonl, math-500.jsonl"),
        (["data", "prepare", "--from", "nowhere"], "missing train.jsonl (DigitalLearningGmbH/MATH-lighteval, default, split"),
        (["data", "prepare", "--form", "x"], "--form"),
    ],
)
def test_offline_and_wrong_input_get_one_line_and_exit_2(tmp_path, arguments, said):
    result = asymlib(*arguments, folder=tmp_path, ASYMLIB_DATA="data")
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


REAL = Path(__file__).resolve().parents[3] / "shared" / "hub"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real sets are not in ../shared/hub")


@real
@pytest.mark.parametrize("place", [0, 300, 674])
def test_a_longer_copy_of_olympiadbench_is_told_which_row_is_extra(place):
    rows = [json.loads(line) for line in (REAL / "olympiadbench.jsonl").read_text().splitlines()]
    rows.insert(place, rows[0] | {"question": "How many primes are even?"})
    with pytest.raises(ValueError, match=f"675 rows, must be 674 .* row {place} is extra: 'How many primes are even"):
        data._problems("olympiadbench", rows)


@real
def test_the_real_sets_are_prepared_from_a_folder(tmp_path):
    manifest = prepare(tmp_path, REAL, report=lambda line: None)
    dropped = {row["index"]: row for row in json.loads((tmp_path / "dropped.json").read_text())}
    assert {4487, 4533, 6864, 304, 1509, 5341, 5343, 2616} <= dropped.keys()
    assert 7269 not in dropped  # a sibling: its figure has other numbers
    assert (dropped[4487]["test"], dropped[4487]["test_index"], dropped[4487]["similarity"]) == ("olympiadbench", 459, 100.0)
    assert manifest["rows_kept"]["train"] == 7500 - len(dropped) == 7465
    assert {row["reason"] for row in dropped.values()} == {"also a test problem", "too long a prompt", "without a boxed answer"}
    golds = {
        row["extra_info"]["index"]: row["reward_model"]["ground_truth"]
        for row in pq.read_table(tmp_path / "train.parquet").to_pylist()
    }
    assert (golds[3997], golds[7321], golds[4253]) == ("1, 9", r"30^\circ, 75^\circ, 75^\circ", "(-5, 1)")  # 4253: either point
    assert (golds[6387], golds[5101]) == (r"\text{Softball, Kickball, Picnic} \text{, respectively}", "10000_{4}")
    asked = {
        row["extra_info"]["index"]: row["reward_model"]["ground_truth"]
        for row in pq.read_table(tmp_path / "olympiadbench.parquet").to_pylist()
    }
    assert (asked[210], asked[185], asked[151]) == (r"2,4,3 \text{, respectively}", "$-1$,$2$,$-2$", "7,14,18")
