"""AdamW (arXiv 1711.05101) and the gradient's clipping, for the step."""

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from .policy import Policy

WEIGHT_DECAY, MAX_GRAD_NORM = 0.01, 1.0  # our choice; the paper does not state them


class AdamW:
    """torch's fused AdamW by its function: the class imports torch's compiler, two seconds of every run."""

    def __init__(self, policy: Policy):
        self.weights = dict(policy.named_parameters())
        self.moments = {
            name: {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
            for name, weight in self.weights.items()
        }

    def zero_grad(self) -> None:
        for weight in self.weights.values():
            weight.grad = None

    def clip_gradients(self) -> Tensor:
        """Scale the gradient to norm 1 where it is longer. Returns the norm before."""
        gradients = [weight.grad for weight in self.weights.values()]
        norm = torch.stack([gradient.view(-1).norm(dim=-1) for gradient in gradients]).norm(dim=0)
        scale = (MAX_GRAD_NORM / norm).clamp(max=1.0)
        for gradient in gradients:
            gradient *= scale
        return norm

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        weights, moments = list(self.weights.values()), self.moments.values()
        first, second, count = ([m[part] for m in moments] for part in ("exp_avg", "exp_avg_sq", "step"))
        gradients, settings = [weight.grad for weight in weights], dict(beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False)
        settings |= dict(lr=learning_rate, weight_decay=WEIGHT_DECAY, maximize=False, fused=True)
        adamw(weights, gradients, first, second, [], count, **settings)
