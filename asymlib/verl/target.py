"""What a profile of verl runs on, as data: the only place that tells a CPU from GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..evaluation.sets import BENCHMARKS, data_root
from ..runs.spec import ExperimentSpec
from .cpu import settings as cpu
from .setting import Machine


class Target(NamedTuple):
    """The benchmarks (the first selects the checkpoint), and what differs from the settings of the paper's machine."""

    gpus: int  # of a node, where nobody says how many
    needs: str  # which of `asymlib doctor`'s checks must pass
    benchmarks: Callable[[ExperimentSpec], Sequence[str]]
    rows: Callable[[ExperimentSpec, Machine], list[tuple]]  # key, value, source of the settings that it replaces
    environment: dict[str, str]  # of verl's processes
    dtype: str  # of rollouts, validation and evaluation
    evaluation: Callable[[ExperimentSpec, Path], dict[str, Any]]  # arguments of `evaluate`, of a spec and the results folder


GPUS = Target(
    4,
    "h100",
    lambda spec: BENCHMARKS,
    lambda spec, machine: [],
    {},
    "bfloat16",
    lambda spec, results: {"data": data_root(results)},
)
TARGETS = {
    "cpu": Target(
        1,
        "verl-cpu",
        cpu.benchmarks,
        cpu.rows,
        cpu.ENVIRONMENT,
        "float32",  # as in the lab
        lambda spec, results: {"samples": cpu.SAMPLES, "engine": "transformers", "data": cpu.data_folder(spec)},
    )
}


def target_of(spec: ExperimentSpec) -> Target:
    return TARGETS.get(spec.profile, GPUS)
