"""What a profile of verl runs on, as data: the only place that tells a CPU from GPUs."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..evaluation.sets import BENCHMARKS, data_root
from ..runs.spec import ExperimentSpec
from ..support.files import read_json
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
# Weights, gradients and moments, 16 bytes a parameter, are 10 GB of 0.6B and 25 GB of 1.5B.
_ONE_CARD = "our choice: for one card, of 24 GB for Qwen3-0.6B and of 80 GB for Qwen2.5-Math-1.5B; not measured"
ONE_GPU = GPUS._replace(
    gpus=1,
    rows=lambda spec, machine: [
        ("actor_rollout_ref.rollout.gpu_memory_utilization", 0.4, _ONE_CARD),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", 4096, f"{_ONE_CARD}; its logits take 2.5 GB"),
        ("actor_rollout_ref.actor.fsdp_config.optimizer_offload", True, _ONE_CARD),
    ],
)
CPU = Target(
    1,
    "verl-cpu",
    cpu.benchmarks,
    cpu.rows,
    cpu.ENVIRONMENT,
    "float32",  # as in the lab
    lambda spec, results: {"samples": cpu.SAMPLES, "engine": "transformers", "data": cpu.data_folder(spec)},
)
STAND_IN = CPU._replace(
    benchmarks=lambda spec: BENCHMARKS,
    rows=cpu.stand_in_rows,
    evaluation=lambda spec, results: {"engine": "transformers", "data": data_root(results)},
)


TARGETS = {"cpu": CPU, "gpu1": ONE_GPU}


def target_of(spec: ExperimentSpec) -> Target:
    return STAND_IN if cpu.STAND_IN in os.environ else TARGETS.get(spec.profile, GPUS)


def machine_of(spec: ExperimentSpec, overrides: Sequence[str] | None = None, **options: Any) -> Machine:
    """What a run of `spec` takes: the options that are given, else what the environment says, else its profile's GPUs."""
    return Machine.of_environment(target_of(spec).gpus, overrides=tuple(overrides) if overrides else None, **options)


def stand_in() -> dict[str, Any]:
    """What a record says of a rehearsal's stand-in; nothing without one."""
    return {"stand_in": read_json(Path(os.environ[cpu.STAND_IN]) / "stand_in.json")} if cpu.STAND_IN in os.environ else {}
