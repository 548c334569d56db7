"""The paper's claims C1-C13 (`claims.yaml`): each a few contrasts between variants of one measure.

Two studies judge them. The first (results/lab/PROTOCOL.md) took Avg@k for every accuracy and nats for entropy; the second
(results/decisive/PROTOCOL.md) takes the measure that the paper itself uses for each claim. `verdicts.py` has the rules.
"""

import re
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np

from ..support.yaml12 import parse_yaml
from .looks import BETAS, SWEEPS

Direction = Literal["above 0", "below 0", "alike"]
_EXPECTED: dict[str, Direction] = {">": "above 0", "<": "below 0", "~": "alike"}
_FIRST_MEASURES = {"log entropy": "entropy", "validation accuracy": "accuracy"}


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


class Split(NamedTuple):
    """A difference between a variant with a beta > 0, or both, and REINFORCE, to be split at the control of that side."""

    claim: str
    measure: str
    variant: str
    side: str

    @property
    def parts(self) -> dict[str, Contrast]:
        """whole = boundary + modulation."""
        pairs = {"whole": (self.variant, "reinforce"), "boundary": (control := CONTROLS[self.side], "reinforce")}
        pairs["modulation"] = (self.variant, control)
        return {part: contrast(f"{self.measure}: {a} > {b}") for part, (a, b) in pairs.items()}


def contrast(text: str) -> Contrast:
    """The contrast that a line of `claims.yaml` means: 'log entropy: pos_only > reinforce'."""
    measure, a, sign, b = re.fullmatch("(.+?): (.+) ([<>~]) (.+)", text).groups()
    weights = {a: 1.0} | ({} if b == "0" else {b: -1.0})
    if a.startswith("slope over "):
        centred = np.asarray(BETAS) - np.mean(BETAS)
        weights = dict(zip(SWEEPS[a.removeprefix("slope over ")], (centred / (centred @ centred)).tolist(), strict=True))
    shown = (a if b == "0" else f"{a} - {b}") + (", alike" if sign == "~" else "")
    return Contrast(f"{measure}: {shown}", measure, weights, _EXPECTED[sign])


def _as_first_judged(claim: Claim) -> Claim:
    old = [c.text.replace(c.measure, _FIRST_MEASURES.get(c.measure, c.measure)) for c in claim.contrasts]
    return claim._replace(
        contrasts=tuple(c._replace(text=t, measure=t.split(": ")[0]) for c, t in zip(claim.contrasts, old, strict=True))
    )


_DATA = parse_yaml(files(__package__).joinpath("claims.yaml").read_text())
CLAIMS = tuple(Claim(row["id"], row["text"], tuple(map(contrast, row["contrasts"]))) for row in _DATA["claims"])
FIRST_CLAIMS = tuple(_as_first_judged(claim) for claim in CLAIMS if claim.id != "C13")  # C13 was added with the second study
SPLITS = tuple(Split(**row) for row in _DATA["splits"])
ACCURACY_PAIRS, FLIP_PAIRS = _DATA["accuracy_pairs"], _DATA["flip_pairs"]  # notebooks 32, 34 and 36 draw them
# REINFORCE with the groups masked that a beta > 0 gives zero (0^0 = 1 gives them +-1): the control of each side, and of both.
CONTROLS = {
    "beta_pos": "reinforce mask_all_solved=True",
    "beta_neg": "reinforce mask_none_solved=True",
    "both": "reinforce mask_all_solved=True mask_none_solved=True",
}
