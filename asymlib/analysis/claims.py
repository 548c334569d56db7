"""The paper's claims C1-C12, each a few contrasts between runs: holds / does not hold / undecided, with effect and interval.

A contrast is a weighted sum over variants of one measure, taken seed by seed (the seeds are paired: same prompts, same initial
checkpoint). Its mean over seeds has a 95% interval; the interval decides (results/lab/PROTOCOL.md).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from ..runs.records import RunRecord
from .statistics import CONFIDENCE, avg_at_k, distance_p, holm, mean_interval

Direction = Literal["above 0", "below 0", "alike"]
Verdict = Literal["holds", "does not hold", "undecided", "no runs"]

# Differences smaller than these count as "alike" (our choice; the paper gives no margin).
MARGINS = {"entropy": 0.05, "all-solved": 0.02, "none-solved": 0.02}

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
BETA_POS_SWEEP = ("reinforce", "reinforce beta_pos=0.25", "pos_only", "reinforce beta_pos=0.75", "reinforce beta_pos=1.0")
BETA_NEG_SWEEP = ("reinforce", "reinforce beta_neg=0.25", "neg_only", "reinforce beta_neg=0.75", "reinforce beta_neg=1.0")
REGULARISED = "reinforce entropy_coeff=0.01"


class Contrast(NamedTuple):
    """sum_v weight_v * measure_v, expected above 0, below 0, or within +-MARGINS[measure] of it."""

    text: str
    measure: str
    weights: dict[str, float]
    expected: Direction

    @property
    def bounds(self) -> tuple[float, ...]:
        """Where the verdict turns."""
        return (-MARGINS[self.measure], MARGINS[self.measure]) if self.expected == "alike" else (0.0,)

    def verdict(self, effect: float, p: float) -> Verdict:
        """`p` is that of the nearest bound: below .05 the 95% interval lies on one side. NaN (one seed) decides nothing."""
        if not p < 1 - CONFIDENCE:
            return "undecided"
        inside = {"above 0": effect > 0, "below 0": effect < 0, "alike": abs(effect) < self.bounds[-1]}
        return "holds" if inside[self.expected] else "does not hold"


class Claim(NamedTuple):
    """It holds if all of its contrasts hold, and does not hold if one of them does not."""

    id: str
    text: str
    contrasts: tuple[Contrast, ...]


def more(measure: str, a: str, b: str) -> Contrast:
    return Contrast(f"{measure}: {a} - {b}", measure, {a: 1.0, b: -1.0}, "above 0")


def alike(measure: str, a: str, b: str) -> Contrast:
    return Contrast(f"{measure}: {a} - {b}, alike", measure, {a: 1.0, b: -1.0}, "alike")


def alone(measure: str, variant: str, expected: Direction) -> Contrast:
    return Contrast(f"{measure}: {variant}", measure, {variant: 1.0}, expected)


def slope(measure: str, name: str, sweep: tuple[str, ...], expected: Direction) -> Contrast:
    """Least-squares slope of the measure over the sweep's betas, per unit of beta."""
    centred = np.asarray(BETAS) - np.mean(BETAS)
    weights = dict(zip(sweep, (centred / (centred @ centred)).tolist(), strict=True))
    return Contrast(f"{measure}: slope over {name}", measure, weights, expected)


CLAIMS = (
    Claim("C1", "Cov(p) grows with p (first 40 steps)", (alone("cov-slope", "grpo", "above 0"),)),
    Claim("C2", "Pos-Only keeps entropy above REINFORCE", (more("entropy", "pos_only", "reinforce"),)),
    Claim("C3", "Pos-Only improves accuracy over REINFORCE", (more("accuracy", "pos_only", "reinforce"),)),
    Claim("C4", "Neg-Only brings entropy below REINFORCE", (more("entropy", "reinforce", "neg_only"),)),
    Claim("C5", "Neg-Only improves accuracy over REINFORCE", (more("accuracy", "neg_only", "reinforce"),)),
    Claim(
        "C6",
        "A larger beta_pos lowers the share of none-solved groups",
        (slope("none-solved", "beta_pos", BETA_POS_SWEEP, "below 0"),),
    ),
    Claim(
        "C7",
        "beta_neg 0 -> 0.5 raises the positive log-prob increment; 0.75 falls below the baseline",
        (more("increment", "neg_only", "reinforce"), more("increment", "reinforce", "reinforce beta_neg=0.75")),
    ),
    Claim(
        "C8",
        "Entropy regularisation raises entropy, stays under Pos-Only in accuracy, leaves solved shares like REINFORCE",
        (
            more("entropy", REGULARISED, "reinforce"),
            more("accuracy", "pos_only", REGULARISED),
            alike("all-solved", REGULARISED, "reinforce"),
            alike("none-solved", REGULARISED, "reinforce"),
        ),
    ),
    Claim(
        "C9",
        "EntDecrease lowers entropy against GRPO; EntIncrease raises it",
        (more("entropy", "grpo", "ent_decrease"), more("entropy", "ent_increase", "grpo")),
    ),
    Claim(
        "C10",
        "Both flips end below GRPO in accuracy and degrade late",
        (
            more("late accuracy", "grpo", "ent_decrease"),
            more("late accuracy", "grpo", "ent_increase"),
            alone("late change", "ent_decrease", "below 0"),
            alone("late change", "ent_increase", "below 0"),
        ),
    ),
    Claim(
        "C11",
        "AsymGRPO > symmetric > GRPO in accuracy, at an entropy like GRPO's",
        (
            more("accuracy", "asymgrpo", "asymgrpo_symmetric"),
            more("accuracy", "asymgrpo_symmetric", "grpo"),
            more("accuracy", "asymgrpo", "grpo"),
            alike("entropy", "asymgrpo", "grpo"),
        ),
    ),
    Claim(
        "C12",
        "AsymGRPO w/ Clip-higher > GRPO w/ Clip-higher in accuracy, at a like entropy",
        (
            more("accuracy", "asymgrpo_clip_higher", "grpo_clip_higher"),
            alike("entropy", "asymgrpo_clip_higher", "grpo_clip_higher"),
        ),
    ),
)
CONTRASTS = [(claim, contrast) for claim in CLAIMS for contrast in claim.contrasts]


def measure_run(record: RunRecord) -> dict[str, float]:
    """The quantities that claims compare, of one run.

    entropy (nats per token), all-solved, none-solved, increment (nats per rollout): means over the run. accuracy: mean Avg@k of
    the best checkpoint over the five sets. late accuracy: mean validation accuracy of the run's last fifth; late change: that
    minus the middle fifth's. cov-slope: least-squares slope of Cov(p) over 0 < p < 1 (at 0 and 1 advantages are equal).
    """
    metrics, validation = record.metrics, record.metrics["val_acc"].dropna().to_numpy()
    best = record.evaluation.query("checkpoint == 'best'")
    fifth = max(len(validation) // 5, 1)
    middle = validation[(len(validation) - fifth) // 2 :][:fifth].mean()
    inner = record.covariance.query("0 < accuracy < 1").groupby("accuracy")["covariance"].mean()
    return {
        "entropy": metrics["entropy"].mean(),
        "accuracy": float(np.mean([avg_at_k(row.correct, row.samples) for row in best.itertuples()])),
        "late accuracy": validation[-fifth:].mean(),
        "late change": validation[-fifth:].mean() - middle,
        "all-solved": metrics["all_solved"].mean(),
        "none-solved": metrics["none_solved"].mean(),
        "increment": metrics["log_prob_increment_pos"].mean(),
        "cov-slope": float(np.polyfit(inner.index, inner.to_numpy(), 1)[0]) if len(inner) > 1 else np.nan,
    }


def measure_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run that did not collapse: variant, policy, seed and its measures. `runs` comes from `load_runs`."""
    kept = runs[~runs["collapsed"].astype(bool)]
    rows = [{"variant": r.variant, "policy": r.policy, "seed": r.seed} | measure_run(r.record) for r in kept.itertuples()]
    return pd.DataFrame(rows)


def contrast_by_seed(measures: pd.DataFrame, contrast: Contrast) -> np.ndarray:
    """(S,) the contrast's value on each seed that has all of its variants; `measures` are of one policy."""
    wide = measures.pivot_table(index="seed", columns="variant", values=contrast.measure)
    return wide.reindex(columns=list(contrast.weights)).dropna().to_numpy() @ np.array(list(contrast.weights.values()))


def judge_contrasts(measures: pd.DataFrame) -> pd.DataFrame:
    """One row a contrast, of one policy's measures: claim, contrast, expected, effect, low, high, p, seeds, and its verdict,
    alone and after Holm's correction over all contrasts."""
    rows = []
    for claim, contrast in CONTRASTS:
        values = contrast_by_seed(measures, contrast)
        row = {"claim": claim.id, "contrast": contrast.text, "expected": contrast.expected, "seeds": len(values)}
        if len(values):
            mean, low, high, _ = mean_interval(values)
            row |= {"effect": mean, "low": low, "high": high, "p": distance_p(values, contrast.bounds)}
        rows.append(row)
    columns = ["claim", "contrast", "expected", "effect", "low", "high", "p", "seeds"]
    table = pd.DataFrame(rows, columns=columns)
    for name, p in (("verdict", table["p"]), ("after Holm", holm(table["p"]))):
        decided = [c.verdict(effect, q) for (_, c), effect, q in zip(CONTRASTS, table["effect"], p, strict=True)]
        table[name] = np.where(table["seeds"] == 0, "no runs", decided)
    return table


def judge_claims(contrasts: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: claim, text, verdict, after Holm. `contrasts` comes from `judge_contrasts`."""
    rows = []
    for claim in CLAIMS:
        mine = contrasts[contrasts["claim"] == claim.id]
        verdicts = {column: _weakest(set(mine[column])) for column in ("verdict", "after Holm")}
        rows.append({"claim": claim.id, "text": claim.text} | verdicts)
    return pd.DataFrame(rows)


def _weakest(verdicts: set[str]) -> Verdict:
    return next((v for v in ("does not hold", "no runs", "undecided") if v in verdicts), "holds")
