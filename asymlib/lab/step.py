"""One training step: roll out, score, turn rewards into advantages, update (Eq. 2, 8).

Of one run, or of a stack of runs (`stack.py`) whose matrix products run as one; a stack's runs differ in method and seeds only.

Shapes: P prompts, G rollouts each, N = P * G rows ordered by prompt, T response tokens; `...` is nothing for one run, the
number of runs for a stack.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from ..advantages import add_entropy_advantage, group_advantages
from ..covariance import group_covariance, length_normalized_log_prob
from ..methods import Method
from ..runs.records import COVARIANCE_STEPS
from ..runs.spec import ExperimentSpec
from . import task
from .loss import Loss, policy_loss
from .policy import Policy, token_log_probs
from .sampler import Rollouts, sample

WEIGHT_DECAY, MAX_GRAD_NORM = 0.01, 1.0  # our choice; the paper does not state them
COLLAPSED_EMPTY_SHARE = 0.5  # a step in which half of all responses are empty counts as a collapse


class Outcome(NamedTuple):
    """What a step did to one run."""

    metrics: dict[str, float | None]
    covariance: list[tuple[int, float, float]]  # step, group accuracy, covariance (Eq. 13) of each group, in the first steps
    collapse: str | None  # why the policy broke down in this step


class AdamW:
    """torch's fused AdamW (arXiv 1711.05101) by its function: the class imports torch's compiler, two seconds of every run."""

    def __init__(self, policy: Policy):
        self.weights = dict(policy.named_parameters())
        self.moments = {
            name: {"step": torch.zeros((), device=weight.device)}
            | {part: torch.zeros_like(weight) for part in ("exp_avg", "exp_avg_sq")}
            for name, weight in self.weights.items()
        }

    def zero_grad(self) -> None:
        for weight in self.weights.values():
            weight.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        weights, moments = list(self.weights.values()), self.moments.values()
        adamw(
            weights,
            [weight.grad for weight in weights],
            [m["exp_avg"] for m in moments],
            [m["exp_avg_sq"] for m in moments],
            [],
            [m["step"] for m in moments],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=WEIGHT_DECAY,
            eps=1e-8,
            maximize=False,
        )


def train_step(specs: Sequence[ExperimentSpec], policy: Policy, optimizer: AdamW, step: int) -> list[Outcome]:
    """Train `policy`, one run's or the stack of all `specs`' runs, by one step. Randomness is drawn from (seed, step)."""
    started, spec, stacked = time.perf_counter(), specs[0], policy.is_stack
    learning_rate = spec.learning_rate * min(1.0, step / max(spec.lr_warmup_steps, 1))

    generators = [torch.Generator().manual_seed(s.seed * 1_000_003 + step) for s in specs]
    prompts = torch.stack([task.training_prompts(spec.prompts_per_step, generator) for generator in generators])
    prompts = (prompts if stacked else prompts[0]).to(policy.embedding.weight.device)
    rollouts = sample(policy, prompts, spec.group_size, generators if stacked else generators[0])
    rewards = _rewards(rollouts)
    sampled = time.perf_counter()

    groups = torch.arange(rewards.numel() // spec.group_size).repeat_interleave(spec.group_size)
    lanes = _lanes(specs, stacked)
    advantages = torch.empty_like(rewards)
    for method, runs in lanes:
        of_method = rewards[runs].flatten()
        advantages[runs] = group_advantages(of_method, groups[: len(of_method)], method).view_as(rewards[runs])
    accuracy = rewards.view(len(specs), -1, spec.group_size).mean(-1)
    covariance = [[]] * len(specs)
    if step <= COVARIANCE_STEPS:
        log_probs = length_normalized_log_prob(rollouts.log_probs, rollouts.mask)
        values = group_covariance(log_probs.flatten(), advantages.flatten(), groups).reshape(accuracy.shape)
        per_run = zip(accuracy.tolist(), values.tolist(), strict=True)
        covariance = [[(step, p, c) for p, c in zip(*run, strict=True)] for run in per_run]

    grad_norm, clip_fraction = _update(spec, lanes, policy, optimizer, learning_rate, rollouts, advantages, generators)
    increment = _log_prob_increment(policy, rollouts, rewards > 0)
    measured = {
        "reward": rewards.mean(-1),
        "entropy": rollouts.entropy.sum((-2, -1)) / rollouts.lengths.sum(-1),
        "all_solved": (accuracy == 1).float().mean(-1),
        "none_solved": (accuracy == 0).float().mean(-1),
        "log_prob_increment_pos": increment,
        "response_length": rollouts.lengths.float().mean(-1),
        "clip_fraction": clip_fraction,
        "grad_norm": grad_norm,
    }
    columns = {name: values.flatten().tolist() for name, values in measured.items()}
    columns["log_prob_increment_pos"] = [None if math.isnan(value) else value for value in columns["log_prob_increment_pos"]]
    columns["seconds_rollout"] = [(sampled - started) / len(specs)] * len(specs)
    columns["seconds_update"] = [(time.perf_counter() - sampled) / len(specs)] * len(specs)
    columns["tokens"] = rollouts.lengths.sum(-1).flatten().tolist()
    collapses = _collapses(rollouts, columns["grad_norm"], step)
    return [
        Outcome(dict(zip(columns, values, strict=True)), *rest)
        for *rest, values in zip(covariance, collapses, zip(*columns.values(), strict=True), strict=True)
    ]


def _rewards(rollouts: Rollouts) -> Tensor:
    """(..., N)."""
    prompts = rollouts.prompts.index_select(-2, rollouts.prompt_of_rollout)
    return task.reward(prompts.flatten(0, -2), rollouts.tokens.flatten(0, -2)).view(rollouts.lengths.shape)


def _lanes(specs: Sequence[ExperimentSpec], stacked: bool) -> list[tuple[Method, Any]]:
    """Each method with the index of its runs; the specs of one method stand together."""
    if not stacked:
        return [(specs[0].resolved_method, ...)]
    lanes = []
    for method, runs in groupby(range(len(specs)), key=lambda r: specs[r].resolved_method):
        first, *rest = runs
        lanes.append((method, slice(first, first + 1 + len(rest))))
    return lanes


def _update(
    spec: ExperimentSpec,
    lanes: list[tuple[Method, Any]],
    policy: Policy,
    optimizer: AdamW,
    learning_rate: float,
    rollouts: Rollouts,
    advantages_N: Tensor,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """One epoch over mini-batches of whole groups. Returns the mean gradient norm before clipping and the clip fraction."""
    runs, device = rollouts.lengths.shape[:-1], advantages_N.device
    advantages = advantages_N.unsqueeze(-1).repeat(*[1] * advantages_N.dim(), rollouts.mask.shape[-1])
    for method, lane in lanes:
        if method.entropy_advantage:
            advantages[lane] = add_entropy_advantage(advantages[lane], rollouts.entropy[lane], *method.entropy_advantage)
    shuffled = torch.stack([torch.randperm(spec.prompts_per_step, generator=g, device=g.device) for g in generators])
    shuffled = shuffled.to(device).view(*runs, -1)
    with_entropy = any(method.entropy_coeff for method, _ in lanes)
    groups = torch.arange(spec.prompts_per_minibatch).repeat_interleave(spec.group_size)

    grad_norms, clip_fractions = [], []
    for batch in shuffled.split(spec.prompts_per_minibatch, -1):
        rows = (batch.unsqueeze(-1) * spec.group_size + torch.arange(spec.group_size)).flatten(-2)
        lengths, mask = _take(rollouts.lengths.unsqueeze(-1), rows).squeeze(-1), _take(rollouts.mask, rows)
        old, pushes = _take(rollouts.log_probs, rows), _take(advantages, rows)
        sequences = _take(rollouts.prompts, batch), _take(rollouts.tokens, rows), lengths, groups
        # Without an entropy bonus, rollouts that nothing pushes have no gradient: those of groups all right or all wrong.
        is_needed = pushes.ne(0).any(-1) | with_entropy
        log_probs, entropy = _new_log_probs(policy, *sequences, old, is_needed, with_entropy)
        terms = log_probs, old, pushes, mask, entropy
        losses = [_loss_of(method, lane, *terms) for method, lane in lanes]
        optimizer.zero_grad()
        sum(loss.value.sum() for loss in losses).backward()
        grad_norms.append(_clip_gradients(policy, runs))
        clip_fractions.append(torch.cat([loss.clip_fraction.view(-1) for loss in losses]))
        optimizer.step(learning_rate)
    return torch.stack(grad_norms).mean(0), torch.stack(clip_fractions).mean(0)


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """`rows` (..., n) of values (..., N, T), of each run its own."""
    return values.take_along_dim(rows.unsqueeze(-1), -2)


def _packed_lengths(lengths_N: Tensor) -> Tensor:
    """(N,) lengths to pack by. A stack's runs share their packing, so it takes whole rows and masks what is not real later."""
    return lengths_N if lengths_N.dim() == 1 else torch.full(lengths_N.shape[-1:], task.RESPONSE_TOKENS)


def _loss_of(method: Method, lane: Any, log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, entropy) -> Loss:
    return policy_loss(
        log_probs[lane], old[lane], advantages[lane], mask[lane], method, None if entropy is None else entropy[lane]
    )


def _clip_gradients(policy: Policy, runs: tuple[int, ...]) -> Tensor:
    """Scale each run's gradient to norm 1 where it is longer. Returns the norms before, (...)."""
    gradients = [weight.grad.view(*runs, -1) for weight in policy.parameters()]
    norm = torch.stack([gradient.norm(dim=-1) for gradient in gradients]).norm(dim=0)
    scale = (MAX_GRAD_NORM / norm).clamp(max=1.0).unsqueeze(-1)
    for gradient in gradients:
        gradient *= scale
    return norm


@torch.no_grad()
def _log_prob_increment(policy: Policy, rollouts: Rollouts, is_right: Tensor) -> Tensor:
    """E[log pi_new(y) - log pi_old(y)] over the right rollouts, in nats a rollout (Fig. 2d, h); (...), NaN if none is right."""
    prompts, tokens, lengths, old, _ = rollouts
    new, _ = _new_log_probs(policy, prompts, tokens, lengths, rollouts.prompt_of_rollout, old, is_right)
    increment_N = ((new - old) * rollouts.mask).sum(-1)
    return (increment_N * is_right).sum(-1) / is_right.sum(-1)


def _new_log_probs(
    policy: Policy,
    prompts: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    groups: Tensor,
    old: Tensor,
    is_needed: Tensor,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """(..., N, T) log-probs and, if asked, entropies under `policy`. A lone run leaves rollouts that need none at `old`."""
    if policy.is_stack or is_needed.all() or not is_needed.any():
        return token_log_probs(policy, prompts, tokens, _packed_lengths(lengths), groups, with_entropy=with_entropy)
    kept, groups = groups[is_needed].unique_consecutive(return_inverse=True)
    new, _ = token_log_probs(policy, prompts[kept], tokens[is_needed], lengths[is_needed], groups)
    return old.index_put((is_needed,), new), None


def _collapses(rollouts: Rollouts, grad_norms: list[float], step: int) -> list[str | None]:
    """Why each run broke down in this step, or None."""
    is_finite = torch.isfinite(rollouts.log_probs).all(-1).all(-1).flatten().tolist()
    empty_shares = (rollouts.lengths == 1).float().mean(-1).flatten().tolist()
    reasons = []
    for finite, empty, norm in zip(is_finite, empty_shares, grad_norms, strict=True):
        if not finite:
            reasons.append(f"a log-prob is not finite at step {step}")
        elif empty >= COLLAPSED_EMPTY_SHARE:
            reasons.append(f"{empty:.0%} of the responses are empty at step {step}")
        else:
            reasons.append(None if math.isfinite(norm) else f"the gradient's norm is {norm} at step {step}")
    return reasons
