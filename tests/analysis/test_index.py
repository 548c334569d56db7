"""The index of the records: the committed one is current, and one of records made by hand."""

import pandas as pd
import pytest

from asymlib import make_spec
from asymlib.analysis.index import index_of, page_of, write_index
from asymlib.runs.records import RunRecord, results_root, run_folder
from asymlib.runs.writer import RunWriter


def test_the_committed_index_is_that_of_the_committed_records(tmp_path):
    """`make index` writes both files; commit them with the records."""
    committed = results_root()
    runs = index_of(committed)
    assert runs.to_csv(index=False, float_format="%.4f") == (committed / "runs.csv").read_text()
    assert page_of(runs) == (committed / "README.md").read_text()
    for run in runs.sample(5, random_state=0).itertuples():
        record = RunRecord(committed / run.profile / "runs" / run.id)
        assert record.provenance["commit"].startswith(run.commit) and record.spec.seed == run.seed


@pytest.fixture
def results(tmp_path):
    for profile, seed, entropy, changes in (
        ("lab", 1, 0.5, {}),
        ("lab", 0, 0.3, {}),
        ("long", 2, 0.7, {"beta_pos": 0.25}),
        ("quick", 3, 0, {}),
    ):
        spec = make_spec(method="reinforce", steps=1, seed=seed, profile=profile, **changes)
        writer = RunWriter(spec, run_folder(spec, tmp_path))
        writer.log({"step": 1, "entropy": entropy})
        writer.finish(
            [{"benchmark": "b", "checkpoint": "best", "step": 1, "temperature": 0.4, "samples": 5, "correct": [5, seed]}],
            pd.DataFrame({"step": [1], "accuracy": [0.5], "covariance": [0.1]}),
        )
    return tmp_path


def test_a_row_a_run_and_a_row_a_variant(results):
    write_index(results)
    runs = pd.read_csv(results / "runs.csv")
    assert runs[["profile", "method", "seed", "entropy"]].to_numpy().tolist() == [
        ["lab", "reinforce", 0, 0.3], ["lab", "reinforce", 1, 0.5], ["long", "reinforce", 2, 0.7],
    ]  # fmt: skip
    assert runs.accuracy.tolist() == [0.5, 0.6, 0.7]  # (5 + seed) of 10
    assert runs.beta_pos.tolist() == [0, 0, 0.25] and runs.changes.tolist()[-1] == "beta_pos=0.25"
    page = " ".join((results / "README.md").read_text().split())
    assert "lab: Table 1, figures and claims; small, 1 steps, 2 runs" in page and "quick/" not in page
    assert "| REINFORCE | 0 1 | 55.0 | | 0.400 |" in page
    assert "| REINFORCE, \u03b2_pos = 0.25 | 2 | 70.0 | | 0.700 |" in page


def test_without_records_nothing_is_written(tmp_path):
    write_index(tmp_path)
    assert list(tmp_path.iterdir()) == []
