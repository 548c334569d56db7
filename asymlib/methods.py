"""The 14 trained methods of Table 1 and their published relatives as data: a curve and the loss settings that papers vary.

`get_method(name, **changes)` is the only way to a variant, so the lab, verl, the notebooks and the docs read one table.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from . import related
from .advantages import MOST_POWER, Table, beta_table, check_group_size, mean_baseline_table, pass_at_k_table
from .flips import flipped_negative_table, flipped_positive_table
from .support.messages import one_sentence, refuse_booleans, refuse_unknown, shown
from .support.yaml12 import parse_yaml

MOST = MOST_POWER  # also of a coefficient: above it a loss is no number
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)?(\.\d*)?([eE][-+]?\d+)?", re.ASCII)


class EntropyAdvantage(NamedTuple):
    """Bonus min(alpha * H_t, |A| / kappa) added to each token's advantage (arXiv 2506.14758)."""

    alpha: Annotated[float, Field(gt=0, le=MOST)]
    kappa: Annotated[float, Field(gt=0, le=MOST)]


class Curve(NamedTuple):
    """A table maker and the fields of `Method` that it takes, in order."""

    make: Callable[..., Table]
    parameters: tuple[str, ...]


CURVES: dict[str, Curve] = {
    "beta": Curve(beta_table, ("beta_pos", "beta_neg")),
    "flipped_positive": Curve(flipped_positive_table, ("beta_pos", "beta_neg")),
    "flipped_negative": Curve(flipped_negative_table, ("beta_pos", "beta_neg")),
    "mean_baseline": Curve(mean_baseline_table, ()),
    "pass_at_k": Curve(pass_at_k_table, ("pass_k",)),
    "centred": Curve(related.centred_table, ("power_p", "power_q")),
    "leave_one_out": Curve(related.leave_one_out_table, ()),
    "sample_std": Curve(related.sample_std_table, ()),
    "extra_right": Curve(related.extra_right_table, ()),
    "risk_seeking": Curve(related.risk_seeking_table, ("risk",)),
    "best_of_subset": Curve(related.best_of_subset_table, ("pass_k",)),
    "best_of_group": Curve(related.best_of_group_table, ()),
    "anchored": Curve(related.anchored_table, ("anchor",)),
}
CURVE_PARAMETERS = tuple(dict.fromkeys(name for curve in CURVES.values() for name in curve.parameters))
TABLE_FIELDS = (*CURVE_PARAMETERS, "weight_pos", "weight_neg", "mask_none_solved", "mask_all_solved")  # besides the curve


class Method(BaseModel):
    """One row of Table 1 or of the relatives. The defaults of the loss settings are GRPO's in verl (token-mean, PPO clip 0.2).

    `weight_pos` and `weight_neg` multiply the curve's two sides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    label: str
    source: str
    curve: Literal[tuple(CURVES)] = "beta"
    beta_pos: float | None = Field(None, ge=0, le=MOST)
    beta_neg: float | None = Field(None, ge=0, le=MOST)
    pass_k: int | None = Field(None, ge=1)
    power_p: float | None = Field(None, ge=-MOST, le=MOST)
    power_q: float | None = Field(None, ge=-MOST, le=MOST)
    risk: float | None = Field(None, gt=0, le=MOST)
    anchor: float | None = Field(None, ge=0, le=1)
    weight_pos: float = Field(1.0, ge=0, le=MOST)
    weight_neg: float = Field(1.0, ge=0, le=MOST)
    mask_none_solved: bool = False
    mask_all_solved: bool = False
    clip_low: float = Field(0.2, gt=0, lt=1)
    clip_high: float = Field(0.2, gt=0, le=MOST)
    entropy_coeff: float = Field(0.0, ge=0, le=MOST)
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum-norm"] = "token-mean"
    entropy_advantage: EntropyAdvantage | None = None

    @model_validator(mode="after")
    def _curve_has_its_parameters(self):
        for parameter in CURVE_PARAMETERS:
            value, wanted = getattr(self, parameter), parameter in CURVES[self.curve].parameters
            if (value is not None) != wanted:
                rule = "needs a value" if wanted else "must stay unset"
                raise ValueError(f"{parameter}={value!r}: {rule} for curve {self.curve!r} of method {self.name!r}")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What is trained: all fields but those that only name the method."""
        return self.model_dump(exclude={"label", "source"})

    def table(self, group_size: int) -> Table:
        """(pos, neg): float64 arrays of length G + 1, indexed by the number k of right rollouts, read-only.

        The entries that no rollout can get, pos[0] and neg[G], are 0, and so is neg[0] with `mask_none_solved` and pos[G] with
        `mask_all_solved`: every rollout of such a group gets 0. Raises ValueError for a group size that the curve
        does not allow (flips need 3, Pass@K needs K).
        """
        check_group_size(group_size, 1, "must be")  # before it is looked up: a list has no hash
        return _table(self, group_size)


@lru_cache(maxsize=4096)
def _table(method: Method, group_size: int) -> Table:
    curve = CURVES[method.curve]
    sides = curve.make(group_size, *(getattr(method, name) for name in curve.parameters))
    pos, neg = (np.array(side, dtype=np.float64) for side in sides)
    pos[0] = neg[group_size] = 0.0
    pos *= method.weight_pos
    neg *= method.weight_neg
    if method.mask_none_solved:
        neg[0] = 0.0
    if method.mask_all_solved:
        pos[group_size] = 0.0
    pos.flags.writeable = neg.flags.writeable = False
    return pos, neg


def _rows(name: str) -> MappingProxyType[str, Method]:
    rows = parse_yaml(files(__package__).joinpath(name).read_text())
    return MappingProxyType({row["name"]: Method(**row) for row in rows})


METHODS = _rows("methods.yaml")  # Table 1's fourteen
RELATED = _rows("related.yaml")  # other papers' estimators
CATALOGUE = MappingProxyType({**METHODS, **RELATED})  # whatever can be trained; the paper's own come first

CHANGEABLE = tuple(f for f in Method.model_fields if f not in ("name", "label", "source", "curve"))


def refuse_odd_digits(values: dict[str, Any], fields: dict[str, FieldInfo]) -> None:
    """Raise ValueError for text in a field of numbers that only Python reads as a number: 1_000, 0777."""
    for name, value in values.items():
        numeric = name in fields and fields[name].annotation in (int, float, int | None, float | None)
        if numeric and isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise ValueError(f"{name}={shown(value)}: must be a number, written such as 1000 or 0.5")


def get_method(name: str, /, **changes) -> Method:
    """The method `name`, with some settings changed: get_method("asymgrpo", beta_pos=0.75).

    Raises ValueError, in one sentence that lists the near names, for an unknown method or setting, and for a value that the
    setting does not allow or the method's curve has no use for.
    """
    refuse_unknown("method", [name], CATALOGUE)
    refuse_unknown("method setting", changes, CHANGEABLE)
    refuse_booleans(changes, Method.model_fields)
    refuse_odd_digits(changes, Method.model_fields)
    try:
        return Method.model_validate(CATALOGUE[name].model_dump() | changes)
    except ValidationError as error:
        raise ValueError(one_sentence(error)) from None
