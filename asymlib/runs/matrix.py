"""A matrix: a YAML file that expands to specs.

defaults: {profile: lab, policy: small, steps: 500}     fields of every spec
axes:                                                   the product of these lists
  method: [grpo, {method: reinforce, entropy_coeff: 0.01}]      an entry that is a mapping sets several fields
  seed: [100, 101, 102]
exceptions:                                             where all of `when` match what is written above ...
  - {when: {method: grpo, seed: 102}, skip: true}       ... the spec is left out
  - {when: {policy: base}, set: {steps: 300}}           ... or changed
"""

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from ..methods import CHANGEABLE
from ..support.messages import one_sentence, refuse_unknown, shown
from ..support.yaml12 import read_yaml
from .spec import ExperimentSpec, make_spec

MOST_SPECS = 10_000


class Change(BaseModel):
    """One exception of a matrix."""

    model_config = ConfigDict(extra="forbid")
    when: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    skip: StrictBool = False


class Matrix(BaseModel):
    model_config = ConfigDict(extra="forbid")
    defaults: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    exceptions: list[Change] = Field(default_factory=list)

    def specs(self) -> list[ExperimentSpec]:
        """The specs in order of the axes. Raises ValueError in one sentence, also where two of them are the same run."""
        self._refuse_nonsense()
        found: dict[str, ExperimentSpec] = {}
        unused = dict(enumerate(self.exceptions))
        for choice in itertools.product(*self.axes.values()):
            fields = dict(self.defaults)
            for axis, value in zip(self.axes, choice, strict=True):
                fields |= _set(axis, value)
            skip = False
            for number, change in enumerate(self.exceptions):
                if all(name in fields and _same(fields[name], value) for name, value in change.when.items()):
                    unused.pop(number, None)
                    fields |= change.set
                    skip |= change.skip
            if not skip:
                spec = make_spec(**fields)
                if spec.run_id in found:
                    axes = dict(zip(self.axes, choice, strict=True))
                    raise ValueError(f"written twice: {shown(axes, most=100)} is the run of other entries, {spec.variant}")
                found[spec.run_id] = spec
        for number, change in unused.items():
            where = "among what defaults, axes and earlier exceptions write; a policy's own defaults do not count"
            raise ValueError(f"exceptions.{number}.when={shown(change.when, most=40)}: matches nothing {where}")
        if not found:
            raise ValueError("every spec is skipped: nothing is left")
        return list(found.values())

    def _refuse_nonsense(self) -> None:
        """What is no error of a single spec."""
        count = math.prod(len(values) for values in self.axes.values())
        if count > MOST_SPECS:
            raise ValueError(f"axes: {count} specs, and a matrix holds at most {MOST_SPECS}")
        names = (*ExperimentSpec.model_fields, *CHANGEABLE)
        for number, change in enumerate(self.exceptions):
            for part in ("when", "set"):
                refuse_unknown(f"name in exceptions.{number}.{part}", getattr(change, part), names)
            if change.skip == bool(change.set):
                raise ValueError(f"exceptions.{number}: must either skip (true) or set something")
        fields = [{name for value in values for name in _set(axis, value)} for axis, values in self.axes.items()]
        for (axis, first), (other, second) in itertools.combinations(zip(self.axes, fields, strict=True), 2):
            if both := sorted(map(str, first & second)):
                raise ValueError(f"axes: both {axis!r} and {other!r} set {both[0]}")


def _set(axis: str, value: Any) -> dict[str, Any]:
    """The fields that an axis's entry sets."""
    return value if isinstance(value, dict) else {axis: value}


def _same(a: Any, b: Any) -> bool:
    """1 and 1.0 are the same seed, true is none."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def load_matrix(path: Path | str) -> list[ExperimentSpec]:
    """The specs of a matrix file. Raises ValueError, in one sentence that names the file, for anything wrong in it."""
    fields = read_yaml(path)
    try:
        refuse_unknown("key", fields, Matrix.model_fields)
        return Matrix.model_validate(fields).specs()
    except ValidationError as error:
        raise ValueError(f"{path}: {one_sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
