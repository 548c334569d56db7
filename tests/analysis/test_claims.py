import numpy as np
import pandas as pd
import pytest

from asymlib import METHODS, load_runs, make_spec
from asymlib.analysis.claims import (
    BETA_NEG_SWEEP,
    BETA_POS_SWEEP,
    BETAS,
    CLAIMS,
    MARGINS,
    Contrast,
    judge_claims,
    judge_contrasts,
    measure_run,
    measure_runs,
    slope,
)
from asymlib.analysis.statistics import distance_p, mean_interval
from asymlib.runs.records import RunRecord, run_folder
from asymlib.runs.writer import RunWriter

MEASURES = ("entropy", "accuracy", "late accuracy", "late change", "all-solved", "none-solved", "increment", "cov-slope")
VARIANTS = {variant for claim in CLAIMS for contrast in claim.contrasts for variant in contrast.weights}


def test_the_twelve_claims_compare_runs_that_can_be_made():
    assert [claim.id for claim in CLAIMS] == [f"C{n}" for n in range(1, 13)]
    for variant in VARIANTS:
        method, *changes = variant.split()
        settings = {name: float(value) for name, value in (change.split("=") for change in changes)}
        assert method in METHODS and make_spec(method=method, **settings).variant == variant
    for sweep, side in ((BETA_POS_SWEEP, "beta_pos"), (BETA_NEG_SWEEP, "beta_neg")):
        methods = [make_spec(method=m, **{k: float(v)}) if k else make_spec(method=m) for m, k, v in map(parse, sweep)]
        assert tuple(getattr(spec.resolved_method, side) for spec in methods) == BETAS


def parse(variant):
    method, _, change = variant.partition(" ")
    return method, *(change.split("=") if change else ("", ""))


@pytest.mark.parametrize(
    ("expected", "values", "verdict"),
    [
        ("above 0", [0.1, 0.2, 0.15], "holds"),
        ("above 0", [-0.1, -0.2, -0.15], "does not hold"),
        ("above 0", [-0.1, 0.3, 0.2], "undecided"),
        ("below 0", [-0.1, -0.2, -0.15], "holds"),
        ("below 0", [0.1, 0.2, 0.15], "does not hold"),
        ("alike", [-0.01, 0.01, 0.0], "holds"),
        ("alike", [0.10, 0.11, 0.12], "does not hold"),
        ("alike", [-0.10, -0.11, -0.12], "does not hold"),
        ("alike", [0.0, 0.1, 0.05], "undecided"),  # not shown to be alike, nor to differ
        ("above 0", [0.2], "undecided"),  # one seed
    ],
)
def test_the_interval_decides(expected, values, verdict):
    assert MARGINS["entropy"] == 0.05
    contrast, interval = Contrast("", "entropy", {}, expected), mean_interval(values)
    assert contrast.verdict(interval.mean, distance_p(values, contrast.bounds)) == verdict
    clear = [bound < interval.low or bound > interval.high for bound in contrast.bounds]
    assert all(clear) == (verdict != "undecided")


def test_slope_is_least_squares_per_unit_of_beta():
    values = np.array([0.3, 0.1, 0.4, 0.1, 0.5])
    weights = slope("entropy", "beta_pos", BETA_POS_SWEEP, "above 0").weights
    assert values @ list(weights.values()) == pytest.approx(np.polyfit(BETAS, values, 1)[0])


def table(by_variant):
    """Every measure of every variant is the given value plus the same effect of each seed."""
    rows = [
        {"variant": v, "policy": "small", "seed": seed} | dict.fromkeys(MEASURES, value + 10 * seed + 0.001 * (-1) ** seed * i)
        for i, (v, value) in enumerate(by_variant.items())
        for seed in range(4)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_contrasts_pair_seeds_and_claims_need_all_their_contrasts():
    contrasts = judge_contrasts(table({"reinforce": 0.0, "pos_only": 1.0, "neg_only": -1.0, "asymgrpo": 3.0, "grpo": 2.0}))
    claims = judge_claims(contrasts).set_index("claim")["verdict"]
    pos_only = contrasts[contrasts["claim"] == "C2"].iloc[0]
    assert pos_only.effect == pytest.approx(1) and pos_only.low > 0.99 and pos_only.seeds == 4  # seed effects of 10 cancel
    assert claims[["C2", "C3", "C4", "C5", "C9"]].tolist() == ["holds", "holds", "holds", "does not hold", "no runs"]
    assert claims["C11"] == "does not hold"  # grpo and asymgrpo differ in entropy, whatever the missing runs would say


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
            "accuracy": (0.5 + 0.25) / 2,
            "late accuracy": 0.095,
            "late change": 0.095 - 0.055,
            "all-solved": 0.25,
            "none-solved": 0.5,
            "increment": 2.0,
            "cov-slope": (0.4 - 0.2) / 0.5,
        }
    )
    assert set(measures) == set(MEASURES)
    collapsed = spec.model_copy(update={"seed": 1})
    RunWriter(collapsed, run_folder(collapsed, tmp_path)).folder.joinpath("metrics.jsonl").write_text("")
    RunWriter(collapsed, run_folder(collapsed, tmp_path)).finish([], covariance, collapse="NaN")
    assert measure_runs(load_runs(tmp_path))["seed"].tolist() == [0]
