"""The advantage estimator `asymlib`: any entry of CATALOGUE, changed by the other keys of its block.

    algorithm.adv_estimator=asymlib +algorithm.asymlib.method=asymgrpo +algorithm.asymlib.beta_pos=0.75

verl gives an estimator rewards and group ids only, so a method's Entropy Advantage is added by the trainer (trainer.py).
"""

import logging
from collections import Counter

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import register_adv_est

from ..advantages import group_advantages
from ..methods import CATALOGUE, CHANGEABLE, Method, get_method
from ..support.messages import near_names, refuse_unknown

NAME = "asymlib"
PADDING_UID = "pad"  # verl fills batches up with rows of uid "pad..."; a real uid is a uuid4, hexadecimal digits
logger = logging.getLogger(__name__)


def method_of(algorithm: DictConfig) -> Method:
    """The method that the block `asymlib` of verl's `algorithm` names. Raises ValueError for what it does not know."""
    block = OmegaConf.to_container(algorithm.get(NAME) or OmegaConf.create(), resolve=True)
    refuse_unknown(f"key of algorithm.{NAME}", block, ("method", *CHANGEABLE))
    if "method" not in block:
        raise ValueError(f"algorithm.{NAME}.method is missing; {near_names('', CATALOGUE)}")
    return get_method(block.pop("method"), **block)


def is_padding(uids) -> np.ndarray:
    """(N,) bool: the rows that verl added to make a batch divisible."""
    return np.array([str(uid).startswith(PADDING_UID) for uid in uids], dtype=bool)


@register_adv_est(NAME)
@torch.no_grad()
def estimate(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, config: DictConfig, **_
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's estimator interface: (N, T) rewards and mask, (N,) uids -> (N, T) advantages, twice (they are the returns too).

    Rows of padding get 0, and so, with a warning, does a group that failed rollouts left too small for the method's curve.
    Raises ValueError for rewards other than 0 and 1, and for an Entropy Advantage that no trainer has taken over.
    """
    method, rewards_N = method_of(config), token_level_rewards.sum(-1)
    if method.entropy_advantage:
        raise ValueError(f"method {method.name!r} has an Entropy Advantage, which needs trainer.v1.trainer_mode={NAME}")
    rows = ~is_padding(index) & ~_is_too_small(index, method)
    advantages_N = torch.zeros_like(rewards_N)
    if rows.any():
        advantages_N[torch.as_tensor(rows)] = group_advantages(rewards_N[torch.as_tensor(rows)], index[rows], method)
    advantages = advantages_N[:, None] * response_mask
    return advantages, advantages


def _is_too_small(uids: np.ndarray, method: Method) -> np.ndarray:
    """(N,) bool: rows of groups whose size the method's curve refuses (flips need 3, Pass@K needs K)."""
    sizes, refused = Counter(uids[~is_padding(uids)]), {}
    for size in set(sizes.values()):
        try:
            method.table(size)
        except ValueError as error:
            refused[size] = error
            logger.warning("a group of %d gets advantage 0: %s", size, error)
    return np.array([sizes[uid] in refused for uid in uids], dtype=bool)
