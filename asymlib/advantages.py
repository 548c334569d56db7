"""The advantage of a right and of a wrong rollout as a function of its group's accuracy (Eq. 4-7, 10).

Shapes: N rollouts; G rollouts per group. A *table* is a pair (pos, neg) of float64 arrays of length G + 1:
what a right and a wrong rollout get when k = 0..G of the group's rollouts are right.
"""

import sys
from collections.abc import Hashable, Sequence
from contextlib import suppress
from math import comb
from numbers import Real

import numpy as np

from .support.messages import shown

Table = tuple[np.ndarray, np.ndarray]
MOST_POWER = 100.0  # of a beta: above it a table holds no numbers
MOST_ROLLOUTS = 1_000_000  # of a group: a table of so many entries takes megabytes


def numeric(values, name: str) -> np.ndarray:
    """Numbers, numpy, torch or lists, as numpy. Raises TypeError, naming the argument, for what is none."""
    if (found := _array(values)) is not None and found.dtype.kind in "fiub":
        return found
    raise TypeError(f"{name}={shown(values)}: must be a number, or a list or an array of numbers")


def _array(values) -> np.ndarray | None:
    """As numpy, whole-number and bf16 tensors in double precision; None for what is none, such as a list of unequal lists."""
    with suppress(TypeError, ValueError, RuntimeError):  # the last of tensors on no device, or without strides
        if not hasattr(values, "detach"):
            return np.asarray(values)
        if not values.is_complex():
            return values.detach().cpu().double().numpy()
    return None


def check_curve_arguments(p, **betas: float) -> np.ndarray:
    """Return p as float64. Raises ValueError if p leaves [0, 1] or a beta is no number in 0..100, TypeError if p has none."""
    for name, beta in betas.items():
        if isinstance(beta, bool) or not (isinstance(beta, Real) and 0 <= beta <= MOST_POWER):
            raise ValueError(f"{name}={shown(beta)}: must be a finite number >= 0 and <= {MOST_POWER:.0f}")
    p = numeric(p, "p").astype(np.float64)
    outside = ~((p >= 0) & (p <= 1))
    if outside.any():
        raise ValueError(f"p={p[outside].flat[0]!r}: every group accuracy must lie in [0, 1]")
    return p


def positive_advantage(p, beta: float):
    """((1-p)/p)^beta, the advantage of a right rollout (Eq. 7, 10; beta=0.5 is Eq. 6, beta=0 is Eq. 5).

    p: scalar or array of group accuracies in [0, 1]. Returns float64 of p's shape. At p = 0, where no rollout is right,
    +inf for beta > 0; 0^0 = 1, so beta = 0 gives 1 everywhere. Raises ValueError for p outside [0, 1]
    or beta outside [0, 100].
    """
    p = check_curve_arguments(p, beta=beta)
    with np.errstate(divide="ignore"):
        return ((1 - p) / p) ** beta


def negative_advantage(p, beta: float):
    """-(p/(1-p))^beta, the advantage of a wrong rollout (Eq. 7, 10): the positive curve mirrored in both axes."""
    p = check_curve_arguments(p, beta=beta)
    with np.errstate(divide="ignore"):
        return -((p / (1 - p)) ** beta)


def group_accuracies(group_size: int) -> np.ndarray:
    """k/G for k = 0..G."""
    check_group_size(group_size, 1, "must be")
    return np.arange(group_size + 1) / group_size


def check_group_size(group_size: int, least: int, rule: str) -> None:
    """Raise ValueError, "group_size=...: RULE a whole number >= LEAST and <= 1000000", for another group size."""
    if not (isinstance(group_size, (int, np.integer)) and least <= group_size <= MOST_ROLLOUTS):
        raise ValueError(f"group_size={shown(group_size)}: {rule} a whole number >= {least} and <= {MOST_ROLLOUTS}")


def beta_table(group_size: int, beta_pos: float, beta_neg: float) -> Table:
    """AsymGRPO's table (Eq. 10); equal betas give Eq. 7, (0.5, 0.5) GRPO, (0, 0) REINFORCE."""
    p = group_accuracies(group_size)
    return positive_advantage(p, beta_pos), negative_advantage(p, beta_neg)


def mean_baseline_table(group_size: int) -> Table:
    """Dr.GRPO: A = r - p, no division by the standard deviation (arXiv 2503.20783)."""
    p = group_accuracies(group_size)
    return 1 - p, -p


def pass_at_k_table(group_size: int, k: int) -> Table:
    """Pass@K Training's analytical advantages (arXiv 2508.10751).

    The reward of a random subset of k rollouts is 1 if any of them is right: mean 1 - C(wrong, k)/C(G, k), standard deviation
    s. A rollout gets its subsets' mean reward, centred and divided by s. Where s = 0 (every subset agrees) the advantage is 0.
    Raises ValueError for k > G.
    """
    if not 1 <= k <= group_size:
        raise ValueError(f"pass_k={k!r}: must lie in 1..group_size ({group_size})")
    pos, neg = np.zeros(group_size + 1), np.zeros(group_size + 1)
    for right in range(group_size + 1):
        wrong = group_size - right
        mean = 1 - comb(wrong, k) / comb(group_size, k)
        std = np.sqrt(mean * (1 - mean))
        if std > 0:
            pos[right] = (1 - mean) / std
            neg[right] = (1 - mean - comb(wrong - 1, k - 1) / comb(group_size - 1, k - 1)) / std
    return pos, neg


def group_advantages(rewards, groups, method):
    """Advantage of every rollout (Eq. 4, 10): its method's table, looked up at its group's number of right rollouts.

    rewards: (N,) of 0 or 1, numpy or torch. groups: (N,) hashable group ids in any order; groups may differ in size. method: a
    `Method`. Returns (N,) of rewards' kind, device and floating dtype (whole-number rewards give numpy float64 or
    torch's default dtype). Raises ValueError for lengths that differ and names the first reward that is not 0 or 1.
    """
    torch = sys.modules.get("torch")  # a tensor can only exist if its caller imported torch
    is_tensor = torch is not None and isinstance(rewards, torch.Tensor)
    codes_N = group_codes(groups)
    rewards_N = checked_rewards(rewards, codes_N)
    if not hasattr(method, "table"):
        raise TypeError(f"method={shown(method)}: must be a Method, such as METHODS['grpo']")
    sizes_N = np.bincount(codes_N)[codes_N]
    right_N = np.bincount(codes_N, weights=rewards_N == 1).astype(np.int64)[codes_N]
    advantages_N = np.empty(len(rewards_N))
    for size in np.unique(sizes_N):
        pos, neg = method.table(int(size))
        rows = sizes_N == size
        advantages_N[rows] = np.where(rewards_N[rows] == 1, pos[right_N[rows]], neg[right_N[rows]])

    if is_tensor:
        dtype = rewards.dtype if rewards.dtype.is_floating_point else torch.get_default_dtype()
        return torch.as_tensor(advantages_N, dtype=dtype, device=rewards.device)
    return advantages_N.astype(rewards_N.dtype if rewards_N.dtype.kind == "f" else np.float64)


def checked_rewards(rewards, groups) -> np.ndarray:
    """Rewards (N,) as numpy. Raises ValueError if groups differs in length, and for the first that is not 0 or 1."""
    if (rewards_N := _array(rewards)) is None:
        raise TypeError(f"rewards={shown(rewards)}: must be a list or an array of numbers")
    if rewards_N.ndim != 1 or len(rewards_N) != len(groups):
        raise ValueError(f"rewards has shape {tuple(rewards_N.shape)}, groups has length {len(groups)}: both must be (N,)")
    if rewards_N.dtype.kind == "O":
        wrong_value = np.array([not (_holds(r, 0) or _holds(r, 1)) for r in rewards_N], dtype=bool)
    else:
        wrong_value = ~((rewards_N == 0) | (rewards_N == 1))
    if wrong_value.any():
        first = int(wrong_value.argmax())
        raise ValueError(f"rewards[{first}]={shown(rewards_N[first], quoted=False)}: every reward must be 0 or 1")
    return rewards_N.astype(np.float64) if rewards_N.dtype.kind == "O" else rewards_N


def _holds(value, other) -> bool:
    """Whether they are equal; of pandas' NA or an array one cannot say, which is no."""
    with suppress(TypeError, ValueError, RuntimeError):
        return bool(value == other)
    return False


def add_entropy_advantage(advantages, entropy, alpha: float, kappa: float):
    """A + min(alpha H_t, |A| / kappa), H_t detached (arXiv 2506.14758). advantages, entropy: (N, T) torch tensors, nats."""
    return advantages + (alpha * entropy.detach()).minimum(advantages.abs() / kappa)


def group_codes(groups) -> np.ndarray:
    """Number the groups 0, 1, ... by first appearance; ids need only be hashable. Returns (N,) int64.

    Raises ValueError for None and for an id that does not equal itself: each NaN would be a group of its own. TypeError for
    what is no list of ids.
    """
    with suppress(RuntimeError, NotImplementedError):  # of tensors on no device, or without strides
        if hasattr(groups, "tolist"):  # numpy and torch scalars: plain ones hash alike and fast
            groups = groups.tolist()
        elif isinstance(groups, list | tuple):  # each of torch's scalars has a hash of its own
            groups = [group.tolist() if hasattr(group, "detach") else group for group in groups]
    if not (isinstance(groups, Sequence) and all(isinstance(group, Hashable) for group in groups)):
        raise TypeError(f"groups={shown(groups)}: must be a list or an array of group ids")
    for i, group in enumerate(groups):
        if group is None or not _holds(group, group):
            raise ValueError(f"groups[{i}]={shown(group)}: no group id")
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.fromiter(map(number.__getitem__, groups), dtype=np.int64, count=len(groups))
