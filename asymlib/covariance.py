"""Covariance of log-probability and advantage, and the entropy change that it predicts (Eq. 9, 12-14).

Shapes: N rollouts, T response tokens, V actions of a tabular policy.
"""

import sys

import numpy as np
import pandas as pd

from .advantages import checked_rewards, group_codes, numeric
from .support.messages import shown


def predicted_entropy_change(probs_V, advantages_V, learning_rate: float) -> float:
    """-eta Cov_{y~pi}(log pi(y), A(y)), in nats: Eq. 9, first order in the learning rate (arXiv 2505.22617)."""
    probs_V, advantages_V = np.asarray(probs_V, dtype=np.float64), np.asarray(advantages_V, dtype=np.float64)
    log_probs_V = np.log(probs_V)
    return float(-learning_rate * probs_V @ ((log_probs_V - probs_V @ log_probs_V) * (advantages_V - probs_V @ advantages_V)))


def natural_gradient_step(probs_V, advantages_V, learning_rate: float) -> np.ndarray:
    """One natural-gradient step of a tabular softmax policy: pi'(y) proportional to pi(y) exp(eta A(y))."""
    logits_V = np.log(probs_V) + learning_rate * np.asarray(advantages_V, dtype=np.float64)
    weights_V = np.exp(logits_V - logits_V.max())
    return weights_V / weights_V.sum()


def entropy(probs_V) -> float:
    """-sum pi log pi, in nats (Eq. 3)."""
    probs_V = np.asarray(probs_V, dtype=np.float64)
    return float(-(probs_V @ np.log(probs_V)))


def length_normalized_log_prob(log_probs, mask):
    """Mean log-prob of each rollout's response tokens, in nats per token (Eq. 12).

    log_probs, mask: (N, T), numpy, torch or lists; mask is true on response tokens, what stands under a false mask is
    ignored. Returns (N,), numpy or torch. Raises ValueError for other shapes, for a mask with more than 0 and 1 in it, and for
    a row that has no token.
    """
    torch = sys.modules.get("torch")
    where = torch.where if torch is not None and isinstance(log_probs, torch.Tensor) else np.where
    if where is np.where:
        log_probs, mask = numeric(log_probs, "log_probs"), numeric(mask, "mask")
    elif log_probs.is_complex() or log_probs.is_meta or log_probs.layout is not torch.strided:
        raise TypeError(f"log_probs={shown(log_probs)}: must be real numbers on a device, with strides")
    elif not isinstance(mask, torch.Tensor):
        mask = torch.as_tensor(numeric(mask, "mask"), device=log_probs.device)
    if log_probs.shape != mask.shape or mask.ndim != 2:
        raise ValueError(f"log_probs has shape {tuple(log_probs.shape)}, mask {tuple(mask.shape)}: both must be (N, T)")
    other = (mask != 0) & (mask != 1)
    if other.any():
        raise ValueError(f"mask has the entry {mask[other][0].item()!r}: every entry must be 0 or 1, false or true")
    lengths_N = mask.sum(-1)
    if (lengths_N == 0).any():
        raise ValueError(f"mask[{int((lengths_N == 0).nonzero()[0][0])}] has no token: a response needs at least one")
    return where(mask.astype(bool) if where is np.where else mask.bool(), log_probs, 0.0).sum(-1) / lengths_N


def group_covariance(log_probs, advantages, groups) -> np.ndarray:
    """Covariance of length-normalised log-prob and advantage inside each group, divisor G (Eq. 13).

    log_probs, advantages: (N,), numpy or torch; groups: (N,) hashable ids. Returns float64, one value a group, in the order in
    which the groups first appear. Raises ValueError if the lengths differ or a log-prob or an advantage is not finite.
    """
    codes_N, x_N, a_N = group_codes(groups), numeric(log_probs, "log_probs"), numeric(advantages, "advantages")
    if not x_N.shape == a_N.shape == codes_N.shape:
        raise ValueError(f"shapes differ: log_probs {x_N.shape}, advantages {a_N.shape}, groups {codes_N.shape}; must be (N,)")
    _refuse_infinite(x_N, "log_probs")
    _refuse_infinite(a_N, "advantages")
    sizes = np.bincount(codes_N)

    def centred(values_N):
        return values_N - (np.bincount(codes_N, weights=values_N) / sizes)[codes_N]

    return np.bincount(codes_N, weights=centred(x_N) * centred(a_N)) / sizes


def _refuse_infinite(values_N: np.ndarray, name: str) -> None:
    for i in np.flatnonzero(~np.isfinite(values_N))[:1]:
        raise ValueError(f"{name}[{i}]={values_N.flat[i]!s}: every number must be finite")


def covariance_by_accuracy(log_probs, advantages, rewards, groups) -> pd.DataFrame:
    """Mean group covariance at each group accuracy p (Eq. 14). Columns: accuracy, covariance, count (of groups).

    As `group_covariance`; raises ValueError also for the first reward that is not 0 or 1.
    """
    codes_N = group_codes(groups)
    rewards_N = checked_rewards(rewards, codes_N)
    accuracy = pd.Series(np.bincount(codes_N, weights=rewards_N) / np.bincount(codes_N), name="accuracy")
    covariance = pd.Series(group_covariance(log_probs, advantages, groups))
    return covariance.groupby(accuracy).agg(covariance="mean", count="size").reset_index()
