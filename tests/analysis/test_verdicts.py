"""The rules of verdicts, on values made by hand."""

import numpy as np
import pandas as pd
import pytest

from asymlib import METHODS, make_spec
from asymlib.analysis.claims import CLAIMS, CONTROLS, FIRST_CLAIMS, SPLITS, contrast
from asymlib.analysis.looks import BETAS, SWEEPS, split_variant
from asymlib.analysis.statistics import mean_interval
from asymlib.analysis.verdicts import (
    FIRST_MARGINS,
    FIRST_STUDY,
    MARGINS,
    SECOND_STUDY,
    first_rule,
    judge_claims,
    judge_contrasts,
    one_rule,
    split_boundary,
)
from asymlib.support.yaml12 import assignment

MEASURES = (*MARGINS, "entropy", "cov-slope")


def variants_of(study):
    return {variant for _, contrast in study.contrasts for variant in contrast.weights}


def test_the_claims_compare_runs_that_can_be_made():
    assert [claim.id for claim in CLAIMS] == [f"C{n}" for n in range(1, 14)]
    splits = {variant for split in SPLITS for contrast in split.parts.values() for variant in contrast.weights}
    for variant in variants_of(FIRST_STUDY) | variants_of(SECOND_STUDY) | splits:
        method, changes = split_variant(variant)
        settings = dict(assignment(f"{name}={value}") for name, value in changes.items())
        assert make_spec(method=method, **settings).variant == variant


def test_the_first_study_is_as_it_was():
    """Avg@k and nats, and no C13."""
    assert [claim.id for claim in FIRST_CLAIMS] == [f"C{n}" for n in range(1, 13)]
    assert {c.measure for _, c in FIRST_STUDY.contrasts} == {
        "cov-slope", "entropy", "accuracy", "none-solved", "all-solved", "increment", "late accuracy", "late change"
    }  # fmt: skip
    assert FIRST_STUDY.contrasts[1][1].text == "entropy: pos_only - reinforce"


def test_the_baselines_are_table_1s_rows_that_are_not_the_papers_own():
    own = {"pos_only", "neg_only", "ent_increase", "ent_decrease", "asymgrpo_symmetric", "asymgrpo", "asymgrpo_clip_higher"}
    assert {v for c in CLAIMS[-1].contrasts for v in c.weights} == (set(METHODS) - own) | {"asymgrpo"}


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
        ("above 0", [0.01, 0.011, 0.012], "holds"),  # inside the margin, and yet: the first rule has no "alike"
    ],
)
def test_the_first_rule(expected, values, verdict):
    assert FIRST_MARGINS["entropy"] == 0.05
    finding = first_rule(np.array(values), expected, 0.05)
    assert finding.at(finding.p) == verdict


@pytest.mark.parametrize(
    ("expected", "values", "verdict"),
    [
        ("above 0", [0.1, 0.2, 0.15], "holds"),
        ("above 0", [-0.1, -0.2, -0.15], "does not hold"),
        ("above 0", [-0.1, 0.3, 0.2], "undecided"),
        ("below 0", [0.1, 0.2, 0.15], "does not hold"),
        ("above 0", [0.010, 0.011, 0.012], "alike"),  # clearly above 0, and too small to count
        ("below 0", [0.010, 0.011, 0.012], "alike"),
        ("above 0", [0.0, 0.05, 0.1], "undecided"),  # neither clear of 0 (95%) nor inside the margin (90%)
        ("above 0", [0.04, 0.05, 0.06], "holds"),
        ("alike", [-0.01, 0.01, 0.0], "holds"),
        ("alike", [0.10, 0.11, 0.12], "does not hold"),
        ("alike", [0.0, 0.1, 0.05], "undecided"),
        ("above 0", [0.01], "undecided"),
        ("alike", [0.01], "undecided"),
    ],
)
def test_the_one_rule(expected, values, verdict):
    finding = one_rule(np.array(values), expected, 0.05)
    assert finding.at(finding.p) == verdict
    if len(values) > 1:  # the rule as the protocol has it, by intervals
        narrow, wide = mean_interval(values, 0.9), mean_interval(values)
        inside = -0.05 < narrow.low and narrow.high < 0.05
        assert inside == (verdict == ("holds" if expected == "alike" else "alike"))
        if expected != "alike" and not inside:
            assert (wide.low > 0 or wide.high < 0) == (verdict != "undecided")


def test_without_a_margin_nothing_is_alike():
    finding = one_rule(np.array([1e-9, 1.1e-9, 1.2e-9]), "above 0", None)
    assert finding.at(finding.p) == "holds"


def test_slope_is_least_squares_per_unit_of_beta():
    values = np.array([0.3, 0.1, 0.4, 0.1, 0.5])
    slope = contrast("entropy: slope over beta_pos > 0")
    assert tuple(slope.weights) == SWEEPS["beta_pos"] and slope.text == "entropy: slope over beta_pos"
    assert values @ list(slope.weights.values()) == pytest.approx(np.polyfit(BETAS, values, 1)[0])


def table(by_variant):
    """Every measure of every variant is the given value plus the same effect of each seed."""
    rows = [
        {"variant": v, "policy": "small", "seed": seed} | dict.fromkeys(MEASURES, value + 10 * seed + 0.001 * (-1) ** seed * i)
        for i, (v, value) in enumerate(by_variant.items())
        for seed in range(4)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


@pytest.mark.parametrize("study", [FIRST_STUDY, SECOND_STUDY])
def test_contrasts_pair_seeds_and_claims_need_all_their_contrasts(study):
    measures = table({"reinforce": 0.0, "pos_only": 1.0, "neg_only": -1.0, "asymgrpo": 3.0, "grpo": 2.0})
    contrasts = judge_contrasts(measures, study)
    claims = judge_claims(contrasts, study).set_index("claim")["verdict"]
    pos_only = contrasts[contrasts["claim"] == "C2"].iloc[0]
    assert pos_only.effect == pytest.approx(1) and pos_only.low > 0.99 and pos_only.seeds == 4  # seed effects of 10 cancel
    assert claims[["C2", "C3", "C4", "C5", "C9"]].tolist() == ["holds", "holds", "holds", "does not hold", "no runs"]
    assert claims["C11"] == "does not hold"  # grpo and asymgrpo differ in entropy, whatever the missing runs would say


def test_a_claim_is_what_its_weakest_contrast_is():
    measures = table(
        {"reinforce": 0.0, "pos_only": 0.001, "neg_only": -1.0, "ent_decrease": 1.0, "grpo": 2.0, "ent_increase": 2.0}
    )
    claims = judge_claims(judge_contrasts(measures, SECOND_STUDY), SECOND_STUDY).set_index("claim")["verdict"]
    assert (
        claims["C3"] == "alike" and claims["C9"] == "alike"
    )  # EntDecrease does lower the entropy, EntIncrease changes nothing


def test_no_verdict_before_all_seeds_are_done():
    measures = table({"reinforce": 0.0, "neg_only": -1.0})
    for seeds, verdict in ((4, "holds"), (5, "undecided")):
        row = judge_contrasts(measures, SECOND_STUDY, seeds).query("claim == 'C4'").iloc[0]
        assert row.verdict == verdict and row.seeds == 4


def test_the_whole_is_boundary_and_modulation():
    measures = table({"reinforce": 0.0, CONTROLS["beta_neg"]: -0.6, "neg_only": -1.0})
    found = split_boundary(measures, SPLITS).set_index(["claim", "variant"])
    assert found.index.tolist() == [("C4", "neg_only"), ("C5", "neg_only"), ("C7", "neg_only")]
    row = found.loc["C4", "neg_only"]
    assert (row.whole, row.boundary, row.modulation) == pytest.approx((-1, -0.6, -0.4), abs=0.01)
    assert row["boundary's share"] == pytest.approx(0.6, abs=0.01) and row["whole, low"] < row.whole < row["whole, high"]
    assert row["boundary's share, low"] < 0.6 < row["boundary's share, high"]
    nothing = split_boundary(table({"reinforce": 0.0, CONTROLS["beta_neg"]: -0.6, "neg_only": 0.0}), SPLITS)
    assert "boundary's share" not in nothing or nothing["boundary's share"].isna().all()
