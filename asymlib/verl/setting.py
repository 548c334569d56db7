"""One setting as hydra reads it, and the machine that verl runs on."""

import json
import os
import re
from contextlib import suppress
from typing import Any, NamedTuple, Self

from ..support.messages import shown
from ..support.patience import PATIENCE
from ..support.yaml12 import assignment

_KEYWORDS = ("null", "true", "false", "nan", "inf")  # not text in hydra's grammar
_KEY = re.compile(r"\+{0,2}[\w$-]+([./@][\w$-]+)*", re.ASCII)  # hydra's own, less ~, which would take a spec's setting away


class Setting(NamedTuple):
    """One override. `key` starts with + where verl's configuration lacks it; `value` is one that YAML can write."""

    key: str
    value: Any
    source: str

    @property
    def name(self) -> str:
        """The key without its +: two settings of one name are the same setting."""
        return self.key.lstrip("+")

    @property
    def override(self) -> str:
        """As hydra reads it: key=value, text quoted where its grammar needs that."""
        return f"{self.key}={_hydra(self.value)}"


class Machine(NamedTuple):
    """What verl runs on. No part of a spec: the algorithm is the same on other numbers of GPUs."""

    nodes: int = 1
    gpus_per_node: int = 4
    dashboard_host: str = "127.0.0.1"  # of the Ray that a run starts; whoever reaches the dashboard runs code
    ray_address: str | None = None  # HOST:PORT of a running cluster; without one a run starts a Ray of its own
    patience: int = PATIENCE  # seconds without news (step, log line, evaluated problem) after which a run is given up
    overrides: tuple[str, ...] = ()  # verl's key=value, after all other settings; kept with the record

    @classmethod
    def of_environment(cls, gpus: int = 4, **options: Any) -> Self:
        """The options that are not None, else as `environment` wrote it, else with so many GPUs a node.

        Raises ValueError, naming the variable, for another value.
        """
        given: dict[str, Any] = {name: os.environ[variable] for name, variable in _VARIABLES.items() if variable in os.environ}
        for name in ("nodes", "gpus_per_node", "patience"):
            if name in given:
                if not re.fullmatch("[1-9][0-9]{0,4}", given[name]):
                    raise ValueError(f"{_VARIABLES[name]}={given[name]!r}: must be a whole number of at least 1")
                given[name] = int(given[name])
        if "overrides" in given:
            given["overrides"] = _texts(given["overrides"])
        options = {name: value for name, value in options.items() if value is not None}
        return cls(**{"gpus_per_node": gpus} | given | options)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that carry it into the training process."""
        fields = self._asdict() | {"overrides": json.dumps(self.overrides)}
        return {_VARIABLES[name]: str(value) for name, value in fields.items() if value is not None}

    def added(self) -> list[Setting]:
        """The overrides as settings. Raises ValueError for one that does not read KEY=VALUE."""
        for key in (text.partition("=")[0] for text in self.overrides if "=" in text):
            if not _KEY.fullmatch(key):
                raise ValueError(f"--override {shown(key)}: must be a name of verl's configuration, such as trainer.nnodes")
        return [Setting(*assignment(text), "given by hand: --override") for text in self.overrides]


_VARIABLES = {
    "nodes": "ASYMLIB_NODES",
    "gpus_per_node": "ASYMLIB_GPUS_PER_NODE",
    "dashboard_host": "ASYMLIB_DASHBOARD_HOST",
    "patience": "ASYMLIB_PATIENCE",
    "overrides": "ASYMLIB_OVERRIDES",  # a list in JSON
    "ray_address": "RAY_ADDRESS",  # Ray's own
}
ONE_NODE = Machine()


def least_cpus(gpus: int) -> int:
    """What a node's Ray must count: verl's queue takes 9 CPUs and each GPU 3, and an actor needs a free one to start.

    They mostly wait, so Ray may count more than there are; with fewer the run would wait for them without an end.
    """
    return 12 + 3 * gpus


def _texts(given: str) -> tuple[str, ...]:
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(given), list) and all(isinstance(text, str) for text in found):
            return tuple(found)
    raise ValueError(f'{_VARIABLES["overrides"]}={shown(given)}: must be a JSON list of texts, such as ["KEY=VALUE"]')


def _hydra(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_hydra(key)}:{_hydra(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value) and value.lower() not in _KEYWORDS):
        return str(value)
    escaped = re.sub(r"(\\*)('|$)", r"\1\1\2", value).replace("'", r"\'")
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", escaped)  # OmegaConf halves the backslashes before an interpolation
    return f"'{escaped}'"
