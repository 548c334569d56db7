"""Training many runs as one program: each weight gets a leading dimension of runs, so methods and seeds share every kernel.

For a GPU, which one run of the lab cannot fill; on a CPU, runs side by side are faster. Runs of a stack differ in method and
seeds only. Each has its own weights, moments, clip and random stream, so its record is the one it would have had alone, up to
the rounding of sums. A run that collapses leaves the stack, the others go on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..experiment import ExperimentSpec
from ..records import RunWriter
from .policy import Policy, stack_policies
from .step import AdamW, train_step
from .trainer import State, advance, conclude, is_validated, resume, snapshot, validate

OWN_FIELDS = {"method", "method_changes", "seed", "warmup_seed"}  # in which the runs of a stack may differ


@dataclass
class Run:
    spec: ExperimentSpec
    writer: RunWriter
    state: State  # once in a stack, its weights and moments are views of the stack's


def train_stacked(specs: Sequence[ExperimentSpec], writers: Sequence[RunWriter], results: Path, device: str) -> None:
    """Run every spec to its end into its writer, from its last snapshot if it was cut off before.

    device: a torch device, "cuda". Specs that cannot go together (see OWN_FIELDS) go one stack after the other.
    """
    runs = [Run(spec, writer, resume(spec, writer, results, device)) for spec, writer in zip(specs, writers, strict=True)]
    alike = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.spec.resolved_method.model_dump_json()):  # one method's runs stand together
        alike[run.spec.model_dump_json(exclude=OWN_FIELDS), run.state.step].append(run)
    with torch.device(device):
        for stack in alike.values():
            _train(stack)


def _train(stack: list[Run]) -> None:
    spec, policy, optimizer = stack[0].spec, *_join(stack)
    for step in range(stack[0].state.step + 1, spec.steps + 1):
        outcomes = train_step([run.spec for run in stack], policy, optimizer, step)
        accuracies = validate(policy) if is_validated(spec, step) else [{}] * len(stack)
        for run, outcome, accuracy in zip(stack, outcomes, accuracies, strict=True):
            if outcome.collapse:
                conclude(run.state, run.writer, outcome.collapse)
                continue
            run.writer.log(advance(run.state, step, outcome, accuracy))
            snapshot(run.state, run.writer)
        going = [run for run, outcome in zip(stack, outcomes, strict=True) if not outcome.collapse]
        if not going:
            return
        if len(going) < len(stack):
            stack, (policy, optimizer) = going, _join(going)
    for run in stack:
        conclude(run.state, run.writer)


def _join(runs: list[Run]) -> tuple[Policy, AdamW]:
    """One policy and one optimizer for all; the runs' own weights and moments become views of theirs, so a step moves both."""
    policy = stack_policies([run.state.policy for run in runs])
    optimizer = AdamW(policy)
    for name, weight in policy.named_parameters():
        own = [run.state.optimizer.moments[name] for run in runs]
        joined = {part: torch.stack([moments[part] for moments in own]) for part in ("exp_avg", "exp_avg_sq")}
        optimizer.moments[name] = joined | {"step": own[0]["step"].clone()}
        for r, run in enumerate(runs):
            run.state.policy.get_parameter(name).data = weight.data[r]
            own[r].update({part: values[r] for part, values in joined.items()}, step=optimizer.moments[name]["step"])
    return policy, optimizer
