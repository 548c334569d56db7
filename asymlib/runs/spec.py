"""ExperimentSpec: everything that defines one run. Two equal specs are the same run; `run_id` is a short hash of it."""

import hashlib
import json
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..methods import CATALOGUE, CHANGEABLE, Method, get_method, refuse_odd_digits
from ..support.messages import near_names, one_sentence, refuse_booleans, refuse_unknown, shown
from ..support.yaml12 import parse_yaml
from .policies import canonical

_DEFAULTS = parse_yaml(files(__package__).joinpath("defaults.yaml").read_text())
POLICY_DEFAULTS: dict[str, dict[str, Any]] = _DEFAULTS["policies"]
TASK_DEFAULTS: dict[str, dict[str, Any]] = _DEFAULTS["tasks"]
LAB_POLICIES = tuple(name for name, defaults in POLICY_DEFAULTS.items() if defaults["engine"] == "lab")
MOST = 1_000_000  # steps, prompts or tokens
MOST_ROLLOUTS = 2**20  # of a step
FIRST_FIELDS = 15  # of the first records. A later field enters a run's id only where it is not its default, so ids stay.
Temperature = Annotated[float, Field(gt=0, le=10, strict=True)]
PROFILES = (
    "quick", "lab", "tuning", "long", "controls", "decisive", "rates", "clip", "scale", "countdown", "related", "schedule",
    "temperatures", "h100", "gpu1", "cpu",
)  # fmt: skip


class ExperimentSpec(BaseModel):
    """One training run. Fields that are left out take the policy's defaults (`POLICY_DEFAULTS`); all are stored.

    A Hugging Face id or folder that is not in `POLICY_DEFAULTS` trains on verl with Qwen3-4B's settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    method: str
    method_changes: dict[str, Any] = Field(default_factory=dict)
    engine: Literal["lab", "verl"]
    policy: str = "small"
    seed: int = Field(0, ge=0, lt=2**32)
    steps: int = Field(100, ge=1, le=MOST)
    profile: Literal[PROFILES] = "quick"
    group_size: int = Field(8, ge=1, le=1024)
    prompts_per_step: int = Field(ge=1, le=MOST)
    prompts_per_minibatch: int = Field(ge=1, le=MOST)
    learning_rate: float = Field(gt=0, le=1)
    lr_warmup_steps: int = Field(ge=0, le=MOST)
    max_response_tokens: int = Field(ge=1, le=MOST)
    validation_every: int = Field(10, ge=1, le=MOST)
    warmup_seed: int = Field(0, ge=0, lt=2**32)
    increment_every: int = Field(1, ge=1, le=MOST)  # steps between two log-prob increments; the lab has each step's
    task: Literal[tuple(TASK_DEFAULTS)] = "walk"  # of the lab; on verl the data say which
    beta_schedule: Literal["entropy_guard", "anneal", "accuracy_balance"] | None = None  # of the lab: lab/schedule.py
    exploration_temperatures: tuple[Temperature, ...] = Field((1.0,), min_length=1)  # of the lab's pass@16

    @model_validator(mode="before")
    @classmethod
    def _fill_policy_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        refuse_unknown("spec field", values, cls.model_fields)
        refuse_booleans({name: value for name, value in values.items() if name != "method_changes"}, cls.model_fields)
        refuse_odd_digits(values, cls.model_fields)
        policy, task = (_text(values.get(name, default)) for name, default in (("policy", "small"), ("task", "walk")))
        if policy not in POLICY_DEFAULTS and "/" not in policy:
            raise ValueError(f"policy={shown(policy)}: no Hugging Face id or folder; {near_names(policy, POLICY_DEFAULTS)}")
        defaults = POLICY_DEFAULTS.get(policy, POLICY_DEFAULTS["Qwen/Qwen3-4B"])
        if defaults["engine"] == "lab":
            refuse_unknown("task", [task], TASK_DEFAULTS)
            defaults = defaults | TASK_DEFAULTS[task]
        return defaults | values | {"method_changes": _real_changes(values)}

    @model_validator(mode="after")
    def _fields_agree(self):
        self.resolved_method.table(self.group_size)  # flips and Pass@K refuse small groups
        lab, needed = self.engine == "lab", TASK_DEFAULTS[self.task]["max_response_tokens"]
        batch, pair = f"must divide prompts_per_step={self.prompts_per_step}", self.resolved_method.curve == "beta"
        rollouts, many = self.prompts_per_step * self.group_size, f"times group_size={self.group_size}, at most {MOST_ROLLOUTS}"
        for broken, field, rule in (
            (rollouts > MOST_ROLLOUTS, "prompts_per_step", many),
            (lab and self.policy not in LAB_POLICIES, "policy", f"the lab trains {' and '.join(LAB_POLICIES)}"),
            (lab and self.max_response_tokens != needed, "max_response_tokens", f"the lab's task {self.task!r} needs {needed}"),
            (lab and self.increment_every != 1, "increment_every", "the lab measures the increment at every step"),
            (not lab and self.task != "walk", "task", "a field of the lab; on verl the data say which task it is"),
            (not lab and self.beta_schedule, "beta_schedule", "a rule of the lab; verl keeps the method's betas"),
            (not lab and self.exploration_temperatures != (1.0,), "exploration_temperatures", "a field of the lab"),
            (self.beta_schedule and not pair, "beta_schedule", f"{self.method!r} has no pair of betas"),
            (not lab and self.policy in LAB_POLICIES, "policy", "engine 'verl' needs a Hugging Face id or folder"),
            (self.prompts_per_step % self.prompts_per_minibatch, "prompts_per_minibatch", batch),
        ):
            if broken:
                raise ValueError(f"{field}={getattr(self, field)!r}: {rule}")
        return self

    @property
    def resolved_method(self) -> Method:
        """The method with its changes applied."""
        return get_method(self.method, **self.method_changes)

    @property
    def run_id(self) -> str:
        """12 hex digits of the sha256 of the spec's canonical JSON."""
        later = {name: field.default for name, field in list(type(self).model_fields.items())[FIRST_FIELDS:]}
        fields = {k: v for k, v in self.model_dump(mode="json").items() if k not in later or getattr(self, k) != later[k]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def variant(self) -> str:
        """The method's name with its changes, an unusual group size and a schedule, as figures and tables tell runs apart:
        'reinforce beta_neg=0.75', 'grpo group_size=16'."""
        changes = sorted(self.method_changes.items())
        for name in ("group_size", "beta_schedule"):
            if (value := getattr(self, name)) != ExperimentSpec.model_fields[name].default:
                changes.append((name, value))
        return " ".join([self.method, *(f"{k}={_word(v)}" for k, v in changes)])


def _text(value: Any) -> str:
    """What is no text is refused as what it is."""
    return value if isinstance(value, str) else shown(value)


def _word(value: Any) -> str:
    """A setting without a space in it, so that a variant's name can be taken apart: [0.2,2.0]."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)


def _mapping(changes: Any) -> dict[str, Any]:
    changes = {} if changes is None else changes
    if not isinstance(changes, dict):
        raise ValueError(f"method_changes={shown(changes)}: must be a mapping of method settings")
    refuse_unknown("method setting", changes, CHANGEABLE)
    return changes


def _real_changes(values: dict[str, Any]) -> dict[str, Any]:
    """The changes that change something, at their validated values: beta_pos=1 and 1.0 are the same run."""
    method, changes = values.get("method"), _mapping(values.get("method_changes"))
    if not isinstance(method, str):
        return changes  # the field's own check says what is wrong
    resolved = get_method(method, **changes)
    return {k: getattr(resolved, k) for k in changes if getattr(resolved, k) != getattr(CATALOGUE[method], k)}


def make_spec(**values: Any) -> ExperimentSpec:
    """An ExperimentSpec from fields and, beside them, method settings: make_spec(method="grpo", beta_pos=0.9).

    Raises ValueError in one sentence that names the field, its value and what is allowed.
    """
    refuse_unknown("parameter", values, (*ExperimentSpec.model_fields, *CHANGEABLE))
    if "method" not in values:
        raise ValueError("method is missing: " + near_names("", CATALOGUE))
    changes = _mapping(values.get("method_changes"))
    if twice := sorted(changes.keys() & values.keys()):
        raise ValueError(f"{twice[0]}={shown(values[twice[0]])}: stands in method_changes too")
    changes |= {k: v for k, v in values.items() if k in CHANGEABLE}
    fields = {k: v for k, v in values.items() if k not in CHANGEABLE} | {"method_changes": changes}
    if isinstance(fields.get("policy"), str):
        fields["policy"] = canonical(fields["policy"], tuple(POLICY_DEFAULTS))
    try:
        return ExperimentSpec.model_validate(fields)
    except ValidationError as error:
        raise ValueError(one_sentence(error)) from None
