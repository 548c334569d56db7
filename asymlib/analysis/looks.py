"""How a variant looks and is called in every figure and table: colour, line, marker, label.

A *variant* is `ExperimentSpec.variant`: 'grpo', 'reinforce beta_neg=0.75'. It looks the same everywhere; line style and marker
alone tell the curves of one figure apart, so that a grey print can be read. It needs no matplotlib.
"""

import colorsys
import re
from importlib.resources import files
from typing import NamedTuple

from ..methods import CATALOGUE
from ..support.yaml12 import parse_yaml


class Look(NamedTuple):
    color: str
    linestyle: str | tuple
    marker: str


def _line(text: str) -> str | tuple:
    return text if text[0] in "-:" else (0, tuple(map(int, text.split())))


_ROWS = parse_yaml((files("asymlib.analysis") / "looks.yaml").read_text())
LOOKS = {row["variant"]: Look(row["color"], _line(row["line"]), row["marker"]) for row in _ROWS}
_DERIVED_LINES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1)))  # with six markers, which no row above has: thirty pairs
_DERIVED_MARKERS = "x+1234"  # not "|" or "_", which vanish on their line
_THINLY_DOTTED = (0, (1, 3))  # a change of a method whose own line is dotted
GOLDEN_ANGLE = 0.381966  # of a turn: any number of hues in a row stay apart

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SWEEPS = {  # REINFORCE with one beta raised, in the order of BETAS
    "beta_pos": ("reinforce", "reinforce beta_pos=0.25", "pos_only", "reinforce beta_pos=0.75", "reinforce beta_pos=1.0"),
    "beta_neg": ("reinforce", "reinforce beta_neg=0.25", "neg_only", "reinforce beta_neg=0.75", "reinforce beta_neg=1.0"),
}

POLICY_LABELS = {"small": "lab, small policy (153k parameters)", "base": "lab, base policy (607k parameters)"}
_WORDS = {  # what a label says for a change
    "beta_schedule = ": "schedule ",
    "beta_": "β_",
    "entropy_coeff": "entropy coefficient",
    "group_size": "G",
    "mask_none_solved = True": "none-solved masked",
    "mask_all_solved = True": "all-solved masked",
}


def split_variant(variant: str) -> tuple[str, dict[str, str]]:
    """'reinforce beta_neg=0.75' as ('reinforce', {'beta_neg': '0.75'})."""
    method, *changes = variant.split()
    return method, {name: value for name, _, value in (change.partition("=") for change in changes)}


def look(variant: str) -> Look:
    """The variant's colour, line style and marker; an unlisted change of a method is its dotted line, or thinly dotted."""
    method, changes = split_variant(variant)
    if listed := LOOKS.get(variant) or LOOKS.get(" ".join([method, *changes])):
        return listed
    own = LOOKS.get(method) or _derived_look(method)
    return own._replace(linestyle=_THINLY_DOTTED if own.linestyle == ":" else ":") if changes else own


def _derived_look(method: str) -> Look:
    """By the method's place among those without a row, so that a new method changes nobody's look."""
    place = [name for name in CATALOGUE if name not in LOOKS].index(method)
    channels = colorsys.hls_to_rgb((0.08 + place * GOLDEN_ANGLE) % 1, 0.38, 0.62)
    color = "#" + "".join(f"{round(255 * channel):02X}" for channel in channels)
    return Look(color, _DERIVED_LINES[place % len(_DERIVED_LINES)], _DERIVED_MARKERS[place % len(_DERIVED_MARKERS)])


def label(variant: str) -> str:
    """What a legend or table calls the variant: 'REINFORCE, β_neg = 0.75'."""
    method, changes = split_variant(variant)
    text = ", ".join([CATALOGUE[method].label, *(f"{name} = {value}" for name, value in changes.items())])
    for code, words in _WORDS.items():
        text = text.replace(code, words)
    return text


def math(text: str) -> str:
    """'β_neg' as a subscripted symbol; the rest of the text as it is."""
    return re.sub(r"β_(pos|neg)", r"$\\beta_\\mathrm{\1}$", text)


def policy_label(policy: str) -> str:
    return POLICY_LABELS.get(policy, policy)


def in_order(variants) -> list[str]:
    """The variants, each once, by method and then by name."""
    return sorted(set(variants), key=lambda v: (list(CATALOGUE).index(split_variant(v)[0]), v))
