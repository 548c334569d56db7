"""What one run amounts to, on a record made by hand."""

import numpy as np
import pandas as pd
import pytest

from asymlib import load_runs, make_spec
from asymlib.analysis.measures import late, late_pass_at_k, measure_run, measure_runs
from asymlib.runs.records import RunRecord, run_folder
from asymlib.runs.writer import RunWriter


def test_pass_at_16_is_that_of_the_temperature_asked_for():
    rows = [("best", 0.4, [16]), ("last", 0.8, [0, 1]), ("last", 1.0, [1, 16])]
    evaluation = pd.DataFrame([dict(checkpoint=c, temperature=t, samples=16, correct=right) for c, t, right in rows])
    assert (late_pass_at_k(evaluation), late_pass_at_k(evaluation, temperature=0.8)) == (1, 0.5)
    assert np.isnan(late_pass_at_k(evaluation, temperature=0.4)) and np.isnan(late_pass_at_k(evaluation, k=17))


def test_late_is_the_last_fifth_of_each_runs_steps():
    rows = pd.DataFrame({"run_id": ["a"] * 10 + ["b"] * 3, "step": [*range(1, 11), 10, 40, 50]})
    assert late(rows).step.tolist() == [9, 10, 50]


def test_a_run_is_measured_as_the_docstring_says(tmp_path):
    spec = make_spec(method="grpo", steps=10)
    writer = RunWriter(spec, run_folder(spec, tmp_path))
    for step in range(1, 11):
        writer.log(
            {
                "step": step,
                "entropy": step / 10,
                "all_solved": 0.25,
                "none_solved": 0.5,
                "log_prob_increment_pos": None if step == 1 else 2.0,
                "val_acc": step / 100,
            }
        )
    rows = [{"benchmark": b, "checkpoint": c, "step": 1, "temperature": 0.4, "samples": 4} for b, c in
            (("a", "best"), ("b", "best"), ("a", "last"))]  # fmt: skip
    evaluation = [row | {"correct": correct} for row, correct in zip(rows, ([4, 0], [1, 1], [4, 4]), strict=True)]
    covariance = pd.DataFrame({"step": 1, "accuracy": [0, 0.25, 0.25, 0.75, 1], "covariance": [9.0, 0.1, 0.3, 0.4, 9]})
    writer.finish(evaluation, covariance)
    measures = measure_run(RunRecord(writer.folder))
    assert measures == pytest.approx(
        {
            "entropy": 0.55,
            "log entropy": np.log(0.55),
            "validation accuracy": 0.055,
            "pass@16": np.nan,
            "accuracy": (0.5 + 0.25) / 2,
            "late accuracy": 0.095,
            "late change": 0.095 - 0.055,
            "all-solved": 0.25,
            "none-solved": 0.5,
            "increment": 2.0,
            "cov-slope": (0.4 - 0.2) / 0.5,
        },
        nan_ok=True,
    )
    collapsed = spec.model_copy(update={"seed": 1})
    RunWriter(collapsed, run_folder(collapsed, tmp_path)).folder.joinpath("metrics.jsonl").write_text("")
    RunWriter(collapsed, run_folder(collapsed, tmp_path)).finish([], covariance, collapse="NaN")
    assert measure_runs(load_runs(tmp_path))["seed"].tolist() == [0]
