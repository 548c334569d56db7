"""Training one spec in the lab: roll out, score, turn rewards into advantages, update, validate, evaluate (Eq. 2, 8).

Shapes: P prompts, G rollouts each, N = P * G rows ordered by prompt, T response tokens.
"""

from __future__ import annotations

import ctypes
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ..advantages import add_entropy_advantage, group_advantages
from ..covariance import group_covariance, length_normalized_log_prob
from ..experiment import ExperimentSpec
from ..records import COVARIANCE_STEPS, RunWriter
from . import task
from .loss import policy_loss
from .policy import Policy, token_log_probs
from .sampler import Rollouts, sample
from .warmup import load_warm_policy

WEIGHT_DECAY, MAX_GRAD_NORM = 0.01, 1.0  # our choice; the paper does not state them
EVALUATION_TEMPERATURE = 0.4
EXPLORATION_SAMPLES = 16  # pass@16 of the last policy at temperature 1, on EXPLORATION_BENCHMARK
EXPLORATION_BENCHMARK = "walk-far"
COLLAPSED_EMPTY_SHARE = 0.5  # a step in which half of all responses are empty counts as a collapse
SNAPSHOT_EVERY = 50  # steps between the states that a cut-off run resumes from
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class Collapse(Exception):
    """The policy broke down: NaN or empty responses. The message says which and when."""


@dataclass
class State:
    """All that a run carries from step to step. Randomness is drawn from (seed, step), so none needs keeping."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    step: int = 0
    best_accuracy: float = -1.0
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    covariance: list[tuple[int, float, float]] = field(default_factory=list)  # step, group accuracy, covariance

    def save(self, path: Path) -> None:
        state = {k: v for k, v in vars(self).items() if k not in ("policy", "optimizer")}
        partial = path.with_suffix(".partial")
        torch.save(state | {"weights": self.policy.state_dict(), "moments": self.optimizer.state_dict()}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        self.policy.load_state_dict(saved.pop("weights"))
        self.optimizer.load_state_dict(saved.pop("moments"))
        vars(self).update(saved)


def train(spec: ExperimentSpec, writer: RunWriter, results: Path) -> None:
    """Run `spec` to its end into `writer`, from its last snapshot if it was cut off before."""
    torch.set_num_threads(1)  # processes side by side beat threads at these sizes
    _keep_freed_memory()
    state = new_state(spec, results)
    snapshot = writer.folder / "snapshot.pt"
    if snapshot.exists():
        state.load(snapshot)
    writer.truncate_metrics(state.step)

    collapse = None
    try:
        for metrics in steps(spec, state):
            writer.log(metrics)
            if state.step % SNAPSHOT_EVERY == 0:
                state.save(snapshot)
    except Collapse as error:
        collapse = str(error)
    covariance = pd.DataFrame(state.covariance, columns=["step", "accuracy", "covariance"])
    writer.finish(evaluation=list(_evaluations(state)), covariance=covariance, collapse=collapse)
    snapshot.unlink(missing_ok=True)


def new_state(spec: ExperimentSpec, results: Path) -> State:
    """The warmed-up policy and a fresh optimizer, at step 0."""
    policy = load_warm_policy(spec.policy, spec.warmup_seed, results)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=spec.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    return State(policy, optimizer)


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed tensors' pages: returning and faulting them in again is 5% of a step. Elsewhere nothing."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(parameter, 1 << 30)


def steps(spec: ExperimentSpec, state: State) -> Iterator[dict[str, float]]:
    """Train `state` on to step `spec.steps`; one step's metrics at a time."""
    while state.step < spec.steps:
        step = state.step + 1
        for group in state.optimizer.param_groups:
            group["lr"] = spec.learning_rate * min(1.0, step / max(spec.lr_warmup_steps, 1))
        metrics = _train_step(spec, state, step)
        if step % spec.validation_every == 0 or step == spec.steps:
            metrics |= _validate(state, step)
        state.step = step
        yield {"step": step} | metrics


def _train_step(spec: ExperimentSpec, state: State, step: int) -> dict[str, float]:
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(spec.seed * 1_000_003 + step)
    prompts = task.training_prompts(spec.prompts_per_step, generator)
    rollouts = sample(state.policy, prompts, spec.group_size, generator)
    groups = rollouts.prompt_of_rollout
    rewards = task.reward(prompts[groups], rollouts.tokens)
    sampled = time.perf_counter()
    _check_alive(rollouts, step)

    advantages = group_advantages(rewards, groups, spec.resolved_method)
    if step <= COVARIANCE_STEPS:
        log_probs_N = length_normalized_log_prob(rollouts.log_probs, rollouts.mask)
        accuracy = rewards.view(-1, spec.group_size).mean(1).tolist()
        covariance = group_covariance(log_probs_N, advantages, groups).tolist()
        state.covariance += [(step, p, c) for p, c in zip(accuracy, covariance, strict=True)]

    grad_norm, clip_fraction = _update(spec, state, rollouts, advantages, generator)
    if not math.isfinite(grad_norm):
        raise Collapse(f"the gradient's norm is {grad_norm} at step {step}")
    increment = _log_prob_increment(state.policy, rollouts, rewards > 0)
    right_P = rewards.view(-1, spec.group_size).sum(1)
    return {
        "reward": rewards.mean().item(),
        "entropy": (rollouts.entropy.sum() / rollouts.lengths.sum()).item(),
        "all_solved": (right_P == spec.group_size).float().mean().item(),
        "none_solved": (right_P == 0).float().mean().item(),
        "log_prob_increment_pos": increment,
        "response_length": rollouts.lengths.float().mean().item(),
        "clip_fraction": clip_fraction,
        "grad_norm": grad_norm,
        "seconds_rollout": sampled - started,
        "seconds_update": time.perf_counter() - sampled,
        "tokens": int(rollouts.lengths.sum()),
    }


def _check_alive(rollouts: Rollouts, step: int) -> None:
    if not torch.isfinite(rollouts.log_probs).all():
        raise Collapse(f"a log-prob is not finite at step {step}")
    empty = (rollouts.lengths == 1).float().mean().item()
    if empty >= COLLAPSED_EMPTY_SHARE:
        raise Collapse(f"{empty:.0%} of the responses are empty at step {step}")


def _update(
    spec: ExperimentSpec, state: State, rollouts: Rollouts, advantages_N: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """One epoch over mini-batches of whole groups. Returns the mean gradient norm before clipping and the clip fraction."""
    method, grad_norms, clip_fractions = spec.resolved_method, [], []
    advantages = advantages_N[:, None].expand_as(rollouts.log_probs)
    if method.entropy_advantage:
        advantages = add_entropy_advantage(advantages, rollouts.entropy, *method.entropy_advantage)
    shuffled = torch.randperm(spec.prompts_per_step, generator=generator)
    groups = torch.arange(spec.prompts_per_minibatch).repeat_interleave(spec.group_size)
    for batch in shuffled.split(spec.prompts_per_minibatch):
        rows = (batch[:, None] * spec.group_size + torch.arange(spec.group_size)).flatten()
        log_probs, entropy = token_log_probs(
            state.policy,
            rollouts.prompts[batch],
            rollouts.tokens[rows],
            rollouts.lengths[rows],
            groups,
            with_entropy=method.entropy_coeff > 0,
        )
        loss = policy_loss(log_probs, rollouts.log_probs[rows], advantages[rows], rollouts.mask[rows], method, entropy)
        state.optimizer.zero_grad()
        loss.value.backward()
        grad_norms.append(torch.nn.utils.clip_grad_norm_(state.policy.parameters(), MAX_GRAD_NORM).item())
        clip_fractions.append(loss.clip_fraction.item())
        state.optimizer.step()
    return sum(grad_norms) / len(grad_norms), sum(clip_fractions) / len(clip_fractions)


@torch.no_grad()
def _log_prob_increment(policy: Policy, rollouts: Rollouts, is_right: Tensor) -> float | None:
    """E[log pi_new(y) - log pi_old(y)] over the right rollouts, in nats a rollout (Fig. 2d, h); None if none is right."""
    if not is_right.any():
        return None
    solved, groups = rollouts.prompt_of_rollout[is_right].unique_consecutive(return_inverse=True)
    new, _ = token_log_probs(policy, rollouts.prompts[solved], rollouts.tokens[is_right], rollouts.lengths[is_right], groups)
    return (new - rollouts.log_probs[is_right]).sum(1).mean().item()


def _validate(state: State, step: int) -> dict[str, float]:
    """Greedy accuracy on the five held-out sets; keeps the weights that are best on the selection set so far."""
    sets, correct = task.benchmark_prompts(), {}
    prompts = torch.cat(list(sets.values()))
    rollouts = sample(state.policy, prompts, 1, torch.Generator(), temperature=0.0)
    rewards = task.reward(prompts, rollouts.tokens).split([len(s) for s in sets.values()])
    for name, right in zip(sets, rewards, strict=True):
        correct[f"val_acc/{name}"] = right.mean().item()
    accuracy = correct[f"val_acc/{task.SELECTION_BENCHMARK}"]
    if accuracy > state.best_accuracy:
        state.best_accuracy, state.best_step = accuracy, step
        state.best_weights = {k: v.clone() for k, v in state.policy.state_dict().items()}
    return {"val_acc": sum(correct.values()) / len(correct)} | correct


def _evaluations(state: State) -> Iterator[dict]:
    """Avg@k of the best checkpoint on every set at temperature 0.4; pass@16 of the last policy at temperature 1."""
    sets = task.benchmark_prompts()
    if torch.isfinite(state.policy.embedding.weight).all():
        prompts = sets[EXPLORATION_BENCHMARK]
        yield _evaluate(state.policy, "last", state.step, EXPLORATION_BENCHMARK, prompts, EXPLORATION_SAMPLES, 1.0)
    if not state.best_weights:  # collapsed before the first validation
        return
    state.policy.load_state_dict(state.best_weights)
    for name, prompts in sets.items():
        samples = task.BENCHMARKS[name].samples
        yield _evaluate(state.policy, "best", state.best_step, name, prompts, samples, EVALUATION_TEMPERATURE)


def _evaluate(policy, checkpoint, step, benchmark, prompts, samples, temperature) -> dict:
    generator = torch.Generator().manual_seed(0)  # the same draws for every method: paired comparisons
    rollouts = sample(policy, prompts, samples, generator, temperature)
    rewards = task.reward(prompts[rollouts.prompt_of_rollout], rollouts.tokens)
    return {
        "benchmark": benchmark,
        "checkpoint": checkpoint,
        "step": step,
        "temperature": temperature,
        "samples": samples,
        "correct": rewards.view(-1, samples).sum(1).int().tolist(),
    }
