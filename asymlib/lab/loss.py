"""The clipped policy loss with every setting that Table 1 varies (Eq. 2), as verl computes it.

Shapes: N rollouts, T response tokens; everything in nats.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..methods import Method

DUAL_CLIP = 3.0  # verl's default `clip_ratio_c`: a wrong token's loss never exceeds 3 |A| (arXiv 1912.09729)
MAX_LOG_RATIO = 20.0  # verl's guard against overflow of exp


class Loss(NamedTuple):
    value: Tensor  # ()
    clip_fraction: Tensor  # () share of response tokens whose gradient the PPO clip removes


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, method: Method, entropy: Tensor | None = None
) -> Loss:
    """Eq. 2, 8, 11 with clip_low/clip_high, dual clip, the method's aggregation and, if it has one, its entropy bonus.

    All (N, T); `advantages` per token; `entropy` is needed where method.entropy_coeff > 0.
    """
    ratio = (log_probs - old_log_probs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - method.clip_low, 1 + method.clip_high)
    loss = torch.maximum(plain, clipped)
    loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * DUAL_CLIP), loss)
    value = aggregate(loss, mask, method.loss_aggregation)
    if method.entropy_coeff:
        value = value - method.entropy_coeff * aggregate(entropy, mask, method.loss_aggregation)
    return Loss(value, ((clipped > plain) & mask).sum() / mask.sum())


def aggregate(values: Tensor, mask: Tensor, how: str) -> Tensor:
    """token-mean: mean over the batch's response tokens. seq-mean-token-sum-norm (Dr.GRPO, arXiv 2503.20783): a response's sum,
    divided by the constant T, mean over responses."""
    count = mask.sum() if how == "token-mean" else mask.numel()
    return (values * mask).sum() / count
