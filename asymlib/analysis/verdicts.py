"""Verdicts on contrasts and claims: the mean over seeds and its intervals decide, by the rule of the study that judges.

The first study's rule stays as it was written (results/lab/PROTOCOL.md). The second study's (results/decisive/PROTOCOL.md) is
one for all measures, and can also say that a claimed difference is not there: alike.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from .claims import CLAIMS, FIRST_CLAIMS, Claim, Contrast, Direction
from .measures import seeds_by_variant
from .statistics import CONFIDENCE, distance_p, equivalence_p, holm, mean_interval, ratio_interval

Verdict = Literal["holds", "does not hold", "alike", "undecided", "no runs"]

# Effects inside these count as alike. Our choice, for the paper gives none; the protocols have the reasons.
FIRST_MARGINS = {"entropy": 0.05, "all-solved": 0.02, "none-solved": 0.02}
MARGINS = {
    "log entropy": float(np.log(1.1)),  # 10%
    "accuracy": 0.01,
    "validation accuracy": 0.01,
    "late accuracy": 0.01,
    "late change": 0.01,
    "all-solved": 0.02,
    "none-solved": 0.02,
    "increment": 0.003,
}
# By profile: no verdict before all of its seeds are done.
SEEDS = {"controls": 8, "decisive": 16, "rates": 8, "clip": 8, "scale": 8, "countdown": 12}


class Finding(NamedTuple):
    """What the values of a contrast say if `p` is small enough; else they decide nothing. NaN, of one seed, never is."""

    verdict: Verdict
    p: float

    def at(self, p: float) -> Verdict:
        return self.verdict if p < 1 - CONFIDENCE else "undecided"


Rule = Callable[[np.ndarray, Direction, float | None], Finding]


def first_rule(values: np.ndarray, expected: Direction, margin: float | None) -> Finding:
    """The 95% interval on one side of 0, or for "alike" of both margins, decides; `p` is that of the nearest bound."""
    bounds = (-margin, margin) if expected == "alike" else (0.0,)
    return _difference(values, expected, bounds)


def one_rule(values: np.ndarray, expected: Direction, margin: float | None) -> Finding:
    """Alike where the 90% interval lies inside the margin (two one-sided tests); else as the 95% interval lies.

    values: (S,) over seeds. A measure without a margin cannot be alike. Where "alike" is what is claimed, being so is "holds".
    """
    if margin is not None and (inside := equivalence_p(values, margin)) < 1 - CONFIDENCE:
        return Finding("holds" if expected == "alike" else "alike", inside)
    if expected == "alike" and abs(np.mean(values)) < margin:
        return Finding("undecided", 1.0)  # near 0, and not shown to be inside
    return _difference(values, expected, (-margin, margin) if expected == "alike" else (0.0,))


def _difference(values: np.ndarray, expected: Direction, bounds: tuple[float, ...]) -> Finding:
    effect = np.mean(values)
    inside = {"above 0": effect > 0, "below 0": effect < 0, "alike": abs(effect) < bounds[-1]}
    return Finding("holds" if inside[expected] else "does not hold", distance_p(values, bounds))


class Study(NamedTuple):
    """Which contrasts are judged, by which rule, with which margins, and what weighs most in a claim's verdict."""

    claims: tuple[Claim, ...]
    rule: Rule
    margins: dict[str, float]
    weakest: tuple[Verdict, ...]

    @property
    def contrasts(self) -> list[tuple[Claim, Contrast]]:
        return [(claim, contrast) for claim in self.claims for contrast in claim.contrasts]


FIRST_STUDY = Study(FIRST_CLAIMS, first_rule, FIRST_MARGINS, ("does not hold", "no runs", "undecided"))
SECOND_STUDY = Study(CLAIMS, one_rule, MARGINS, ("does not hold", "no runs", "alike", "undecided"))


def contrast_by_seed(measures: pd.DataFrame, contrast: Contrast) -> np.ndarray:
    """(S,) the contrast's value on each seed that has all of its variants; `measures` are of one policy."""
    wide = seeds_by_variant(measures, contrast.measure).reindex(columns=list(contrast.weights)).dropna()
    return wide.to_numpy() @ np.array(list(contrast.weights.values()))


def judge_contrasts(measures: pd.DataFrame, study: Study, seeds: int = 1) -> pd.DataFrame:
    """One row a contrast, of one policy's measures: claim, contrast, expected, effect, low, high (95%), p, seeds, and its
    verdict, alone and after Holm's correction over all contrasts of the study.

    seeds: how many the protocol asks for; with fewer the verdict is "undecided".
    """
    rows, findings = [], []
    for claim, contrast in study.contrasts:
        values = contrast_by_seed(measures, contrast)
        row = {"claim": claim.id, "contrast": contrast.text, "expected": contrast.expected, "seeds": len(values)}
        finding = Finding("no runs", np.nan)
        if len(values):
            mean, low, high, _ = mean_interval(values)
            if len(values) >= seeds:
                finding = study.rule(values, contrast.expected, study.margins.get(contrast.measure))
            row |= {"effect": mean, "low": low, "high": high, "p": finding.p}
        rows.append(row)
        findings.append(finding)
    columns = ["claim", "contrast", "expected", "effect", "low", "high", "p", "seeds"]
    table = pd.DataFrame(rows, columns=columns)
    for name, p in (("verdict", table["p"]), ("after Holm", holm(table["p"]))):
        decided = [finding.at(q) for finding, q in zip(findings, p, strict=True)]
        table[name] = np.where(table["seeds"] == 0, "no runs", decided)
    return table


def judge_claims(contrasts: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row a claim: claim, text, verdict, after Holm. `contrasts` comes from `judge_contrasts`."""
    rows = []
    for claim in study.claims:
        mine = contrasts[contrasts["claim"] == claim.id]
        verdicts = {
            column: next((v for v in study.weakest if v in set(mine[column])), "holds") for column in ("verdict", "after Holm")
        }
        rows.append({"claim": claim.id, "text": claim.text} | verdicts)
    return pd.DataFrame(rows)


def split_boundary(measures: pd.DataFrame, splits) -> pd.DataFrame:
    """One row a split: the whole difference, its part at the boundary and its part by modulation, each with its 95% interval.

    The boundary's share of the whole, with its interval, is given only where the whole's interval leaves out 0. Splits without
    a seed are left out.
    """
    rows = []
    for split in splits:
        row = {"claim": split.claim, "measure": split.measure, "variant": split.variant}
        found = {name: contrast_by_seed(measures, contrast) for name, contrast in split.parts.items()}
        if not all(map(len, found.values())):
            continue
        intervals = {name: mean_interval(values) for name, values in found.items()}
        for name, (mean, low, high, _) in intervals.items():
            row |= {name: mean, f"{name}, low": low, f"{name}, high": high}
        share = ratio_interval(found["boundary"], found["whole"])
        if not np.isnan(share.low):
            row |= {"boundary's share": share.mean, "boundary's share, low": share.low, "boundary's share, high": share.high}
        rows.append(row | {"seeds": share.seeds})
    return pd.DataFrame(rows)
