"""The paper's claims C1-C13 as data: each a few contrasts between variants of one measure.

Two studies judge them. The first (results/lab/PROTOCOL.md) took Avg@k for every accuracy and nats for entropy; the second
(results/decisive/PROTOCOL.md) takes the measure that the paper itself uses for each claim. `verdicts.py` has the rules.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from .looks import BETAS, SWEEPS

Direction = Literal["above 0", "below 0", "alike"]
REGULARISED = "reinforce entropy_coeff=0.01"


class Contrast(NamedTuple):
    """sum_v weight_v * measure_v, taken seed by seed, expected above 0, below 0, or alike (0 up to the measure's margin)."""

    text: str
    measure: str
    weights: dict[str, float]
    expected: Direction


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


def slope(measure: str, side: str, expected: Direction) -> Contrast:
    """Least-squares slope of the measure over the sweep of one side's beta, per unit of beta."""
    centred = np.asarray(BETAS) - np.mean(BETAS)
    weights = dict(zip(SWEEPS[side], (centred / (centred @ centred)).tolist(), strict=True))
    return Contrast(f"{measure}: slope over {side}", measure, weights, expected)


BASELINES = (  # Table 1's rows above AsymGRPO that are not the paper's own variants
    "reinforce", "grpo", "grpo_entropy_reg", "grpo_clip_higher", "grpo_entropy_adv", "dr_grpo", "pass_at_k",
)  # fmt: skip
CLAIMS = (
    Claim("C1", "Cov(p) grows with p (first 40 steps)", (alone("cov-slope", "grpo", "above 0"),)),
    Claim("C2", "Pos-Only keeps entropy above REINFORCE", (more("log entropy", "pos_only", "reinforce"),)),
    Claim("C3", "Pos-Only improves accuracy over REINFORCE", (more("validation accuracy", "pos_only", "reinforce"),)),
    Claim("C4", "Neg-Only brings entropy below REINFORCE", (more("log entropy", "reinforce", "neg_only"),)),
    Claim("C5", "Neg-Only improves accuracy over REINFORCE", (more("validation accuracy", "neg_only", "reinforce"),)),
    Claim(
        "C6",
        "A larger beta_pos lowers the share of none-solved groups",
        (slope("none-solved", "beta_pos", "below 0"),),
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
            more("log entropy", REGULARISED, "reinforce"),
            more("validation accuracy", "pos_only", REGULARISED),
            alike("all-solved", REGULARISED, "reinforce"),
            alike("none-solved", REGULARISED, "reinforce"),
        ),
    ),
    Claim(
        "C9",
        "EntDecrease lowers entropy against GRPO; EntIncrease raises it",
        (more("log entropy", "grpo", "ent_decrease"), more("log entropy", "ent_increase", "grpo")),
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
            alike("log entropy", "asymgrpo", "grpo"),
        ),
    ),
    Claim(
        "C12",
        "AsymGRPO w/ Clip-higher > GRPO w/ Clip-higher in accuracy, at a like entropy",
        (
            more("accuracy", "asymgrpo_clip_higher", "grpo_clip_higher"),
            alike("log entropy", "asymgrpo_clip_higher", "grpo_clip_higher"),
        ),
    ),
    Claim(
        "C13",
        "AsymGRPO is ahead of every baseline of Table 1 in accuracy",
        tuple(more("accuracy", "asymgrpo", baseline) for baseline in BASELINES),
    ),
)

_FIRST_MEASURES = {"log entropy": "entropy", "validation accuracy": "accuracy"}


def _as_first_judged(claim: Claim) -> Claim:
    contrasts = (
        c._replace(measure=old, text=c.text.replace(c.measure, old))
        for c in claim.contrasts
        for old in (_FIRST_MEASURES.get(c.measure, c.measure),)
    )
    return claim._replace(contrasts=tuple(contrasts))


FIRST_CLAIMS = tuple(_as_first_judged(claim) for claim in CLAIMS if claim.id != "C13")  # C13 was added with the second study

# The comparisons that claims of accuracy rest on, by claim: variant - variant.
ACCURACY_PAIRS = {
    "C3": ("pos_only", "reinforce"),
    "C5": ("neg_only", "reinforce"),
    "C11a": ("asymgrpo", "grpo"),
    "C11b": ("asymgrpo_symmetric", "grpo"),
    "C11c": ("asymgrpo", "asymgrpo_symmetric"),
    "C12": ("asymgrpo_clip_higher", "grpo_clip_higher"),
}
FLIP_PAIRS = {"C10, EntDecrease": ("grpo", "ent_decrease"), "C10, EntIncrease": ("grpo", "ent_increase")}

# REINFORCE with the groups masked that a beta > 0 gives zero (0^0 = 1 gives them +-1): the control of each side.
CONTROLS = {"beta_pos": "reinforce mask_all_solved=True", "beta_neg": "reinforce mask_none_solved=True"}


class Split(NamedTuple):
    """A difference between a variant with one beta > 0 and REINFORCE, to be split at the control of that beta."""

    claim: str
    measure: str
    variant: str
    side: str

    @property
    def parts(self) -> dict[str, Contrast]:
        """whole = boundary + modulation."""
        control = CONTROLS[self.side]
        return {
            "whole": more(self.measure, self.variant, "reinforce"),
            "boundary": more(self.measure, control, "reinforce"),
            "modulation": more(self.measure, self.variant, control),
        }


SPLITS = (
    Split("C2", "log entropy", "pos_only", "beta_pos"),
    Split("C4", "log entropy", "neg_only", "beta_neg"),
    Split("C5", "validation accuracy", "neg_only", "beta_neg"),
    *(Split("C6", "none-solved", variant, "beta_pos") for variant in SWEEPS["beta_pos"][1:]),
    Split("C7", "increment", "neg_only", "beta_neg"),
    Split("C7", "increment", "reinforce beta_neg=0.75", "beta_neg"),
)
