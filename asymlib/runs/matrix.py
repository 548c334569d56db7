"""A matrix: a YAML file that expands to specs.

defaults: {profile: lab, policy: small, steps: 500}     fields of every spec
axes:                                                   the product of these lists
  method: [grpo, {method: reinforce, entropy_coeff: 0.01}]      an entry that is a mapping sets several fields
  seed: [100, 101, 102]
exceptions:                                             where all of `when` match ...
  - {when: {method: grpo, seed: 102}, skip: true}       ... the spec is left out
  - {when: {policy: base}, set: {steps: 300}}           ... or changed
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..support.files import read_yaml
from ..support.messages import near_names, one_sentence
from .spec import ExperimentSpec, make_spec


class Change(BaseModel):
    """One exception of a matrix."""

    model_config = ConfigDict(extra="forbid")
    when: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    skip: bool = False


class Matrix(BaseModel):
    model_config = ConfigDict(extra="forbid")
    defaults: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(min_length=1)
    exceptions: list[Change] = Field(default_factory=list)

    def specs(self) -> list[ExperimentSpec]:
        """The specs in order of the axes, each once. Raises ValueError in one sentence."""
        found: dict[str, ExperimentSpec] = {}
        for choice in itertools.product(*self.axes.values()):
            fields = dict(self.defaults)
            for axis, value in zip(self.axes, choice, strict=True):
                fields |= value if isinstance(value, dict) else {axis: value}
            skip = False
            for change in self.exceptions:
                if all(fields.get(k) == v for k, v in change.when.items()):
                    fields |= change.set
                    skip |= change.skip
            if not skip:
                spec = make_spec(**fields)
                found.setdefault(spec.run_id, spec)
        return list(found.values())


def load_matrix(path: Path | str) -> list[ExperimentSpec]:
    """The specs of a matrix file. Raises ValueError, in one sentence that names the file, for anything wrong in it."""
    fields = read_yaml(path)
    unknown = set(fields) - set(Matrix.model_fields)
    if unknown:
        name = sorted(unknown, key=str)[0]
        raise ValueError(f"{path}: unknown key {name!r}: {near_names(name, Matrix.model_fields)}")
    try:
        return Matrix.model_validate(fields).specs()
    except ValidationError as error:
        raise ValueError(f"{path}: {one_sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
