"""One training step as the paper tells it: roll out, score, turn rewards into advantages, update, measure.

Shapes: P prompts, G rollouts each, N = P * G rollouts ordered by prompt, T response tokens.
"""

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

from ..advantages import add_entropy_advantage, group_advantages
from ..covariance import group_covariance, length_normalized_log_prob
from ..methods import Method
from ..runs.records import COVARIANCE_STEPS
from ..runs.spec import ExperimentSpec
from .loss import policy_loss
from .optimizer import AdamW
from .policy import Policy, token_log_probs
from .sampler import Rollouts, sample

COLLAPSED_EMPTY_SHARE = 0.5  # a step in which half of all responses are empty counts as a collapse


class Outcome(NamedTuple):
    """What a step did."""

    metrics: dict[str, float | None]
    covariance: list[tuple[int, float, float]]  # step, group accuracy, covariance (Eq. 13) of each group, in the first steps
    collapse: str | None  # why the policy broke down in this step


def train_step(spec: ExperimentSpec, policy: Policy, optimizer: AdamW, step: int, method: Method | None = None) -> Outcome:
    """Train `policy` by one step. `reward` among its metrics is the rollouts' mean reward: J = E[r(x, y)], Eq. 1.

    All randomness is drawn from (seed, step). `method` gives the advantages where a schedule has changed the spec's.
    """
    started, generator, task = time.perf_counter(), torch.Generator().manual_seed(spec.seed * 1_000_003 + step), policy.task
    prompts = task.training_prompts(spec.prompts_per_step, generator)
    rollouts = sample(policy, prompts, spec.group_size, generator)
    groups = rollouts.prompt_of_rollout
    rewards = task.reward(prompts[groups], rollouts.tokens)
    sampled = time.perf_counter()

    advantages = group_advantages(rewards, groups, method or spec.resolved_method)
    accuracy = rewards.view(-1, spec.group_size).mean(1)
    per_group = []
    if step <= COVARIANCE_STEPS:  # Eq. 12, 13
        log_probs = length_normalized_log_prob(rollouts.log_probs, rollouts.mask)
        finite = torch.isfinite(log_probs).all()  # else the run ends here: `_collapse`
        covariance = group_covariance(log_probs, advantages, groups) if finite else torch.full_like(accuracy, torch.nan)
        per_group = [(step, p, c) for p, c in zip(accuracy.tolist(), covariance.tolist(), strict=True)]
    learning_rate = spec.learning_rate * min(1.0, step / max(spec.lr_warmup_steps, 1))
    grad_norm, clip_fraction = update(spec, policy, optimizer, learning_rate, rollouts, advantages, generator)
    metrics = {
        "reward": rewards.mean().item(),
        "entropy": (rollouts.entropy.sum() / rollouts.lengths.sum()).item(),
        "all_solved": (accuracy == 1).float().mean().item(),
        "none_solved": (accuracy == 0).float().mean().item(),
        "log_prob_increment_pos": _log_prob_increment(policy, rollouts, rewards > 0),
        "response_length": rollouts.lengths.float().mean().item(),
        "clip_fraction": clip_fraction,
        "grad_norm": grad_norm,
        "seconds_rollout": sampled - started,
        "seconds_update": time.perf_counter() - sampled,
        "tokens": int(rollouts.lengths.sum()),
    }
    return Outcome(metrics, per_group, _collapse(rollouts, grad_norm, step))


def update(
    spec: ExperimentSpec, policy: Policy, optimizer: AdamW, learning_rate: float, rollouts: Rollouts, advantages_N: Tensor,
    generator: torch.Generator,
) -> tuple[float, float]:  # fmt: skip
    """One epoch over mini-batches of whole groups: the gradient of Eq. 2 weighs each rollout by its advantage (Eq. 8).

    It sums over the right rollouts by the method's positive curve and over the wrong ones by the negative curve (Eq. 11).
    Returns means over the mini-batches: the gradient's norm before clipping, the clip fraction.
    """
    method = spec.resolved_method
    advantages_NT = advantages_N.unsqueeze(1).expand_as(rollouts.tokens)
    if method.entropy_advantage:
        advantages_NT = add_entropy_advantage(advantages_NT, rollouts.entropy, *method.entropy_advantage)
    advantages_PGT = advantages_NT.unflatten(0, (-1, spec.group_size))
    with_entropy = method.entropy_coeff > 0

    grad_norms, clip_fractions = [], []
    for prompts in torch.randperm(spec.prompts_per_step, generator=generator).split(spec.prompts_per_minibatch):
        batch, advantages = rollouts.of_prompts(prompts), advantages_PGT[prompts].flatten(0, 1)
        # Without an entropy bonus a rollout of advantage 0 has no gradient: in most methods groups all right or all wrong.
        is_needed = advantages.ne(0).any(1) | with_entropy
        log_probs, entropy = _new_log_probs(policy, batch, is_needed, with_entropy)
        loss = policy_loss(log_probs, batch.log_probs, advantages, batch.mask, method, entropy)
        optimizer.zero_grad()
        loss.value.backward()
        grad_norms.append(optimizer.clip_gradients())
        clip_fractions.append(loss.clip_fraction)
        optimizer.step(learning_rate)
    return torch.stack(grad_norms).mean().item(), torch.stack(clip_fractions).mean().item()


@torch.no_grad()
def _log_prob_increment(policy: Policy, rollouts: Rollouts, is_right: Tensor) -> float | None:
    """E[log pi_new(y) - log pi_old(y)] over the right rollouts, in nats a rollout (Fig. 2d, h); None if none is right."""
    if not is_right.any():
        return None
    new, _ = _new_log_probs(policy, rollouts, is_right)
    increment_N = ((new - rollouts.log_probs) * rollouts.mask).sum(1)
    return ((increment_N * is_right).sum() / is_right.sum()).item()


def _new_log_probs(policy: Policy, rollouts: Rollouts, is_needed: Tensor, with_entropy=False) -> tuple[Tensor, Tensor | None]:
    """(N, T) log-probs and, if asked, entropies under `policy`. Rollouts that need none may keep their old log-probs."""
    prompts, tokens, lengths, old, _ = rollouts
    groups = rollouts.prompt_of_rollout
    if is_needed.all() or not is_needed.any():  # if none is needed, the gradient is still to be there: of zeros
        return token_log_probs(policy, prompts, tokens, lengths, groups, with_entropy=with_entropy)
    kept, groups = groups[is_needed].unique_consecutive(return_inverse=True)
    new, _ = token_log_probs(policy, prompts[kept], tokens[is_needed], lengths[is_needed], groups)
    return old.index_put((is_needed,), new), None


def _collapse(rollouts: Rollouts, grad_norm: float, step: int) -> str | None:
    """Why the policy broke down in this step, or None."""
    if not torch.isfinite(rollouts.log_probs).all():
        return f"a log-prob is not finite at step {step}"
    empty = (rollouts.lengths == 1).float().mean().item()
    if empty >= COLLAPSED_EMPTY_SHARE:
        return f"{empty:.0%} of the responses are empty at step {step}"
    return None if math.isfinite(grad_norm) else f"the gradient's norm is {grad_norm} at step {step}"
