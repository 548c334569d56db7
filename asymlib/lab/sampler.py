"""Rollouts of a policy: what rollouts of a prompt have in common from the beginning is computed once, finished ones leave.

Shapes: P prompts, G rollouts each, N = P * G rollouts ordered by prompt, T response tokens, V vocabulary; B rows in the batch.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .policy import Policy
from .tasks import EOS

COMPACT_BELOW = 0.75  # copying the cache for fewer finished rows costs more than decoding them on


class Rollouts(NamedTuple):
    """G sampled responses to each of P prompts, ordered by prompt; past a response's length tokens are EOS, floats 0."""

    prompts: Tensor  # (P, L)
    tokens: Tensor  # (N, T)
    lengths: Tensor  # (N,) tokens, EOS included
    log_probs: Tensor  # (N, T) of the sampled tokens, nats
    entropy: Tensor  # (N, T) of the distributions sampled from, nats

    @property
    def mask(self) -> Tensor:
        """(N, T), true on response tokens."""
        return torch.arange(self.tokens.shape[1]) < self.lengths.unsqueeze(1)

    @property
    def prompt_of_rollout(self) -> Tensor:
        """(N,) index of each rollout's prompt: the group id."""
        return torch.arange(len(self.prompts)).repeat_interleave(len(self.tokens) // len(self.prompts))

    def of_prompts(self, prompts: Tensor) -> Self:
        """Those of some prompts, in their order: prompts holds indices."""
        group_size = len(self.tokens) // len(self.prompts)
        rows = (prompts.unsqueeze(1) * group_size + torch.arange(group_size)).flatten()
        return Rollouts(self.prompts[prompts], *(part[rows] for part in self[1:]))


@torch.inference_mode()
def sample(policy: Policy, prompts_PL: Tensor, rollouts: int, generator: torch.Generator, temperature: float = 1.0) -> Rollouts:
    """`rollouts` responses to each prompt, at most T tokens; temperature 0 takes the likeliest token (greedy)."""
    length, columns, n = prompts_PL.shape[1], policy.task.RESPONSE_TOKENS, len(prompts_PL) * rollouts
    x, cache = _prefill(policy, prompts_PL)

    # Drawn at once: what a rollout draws does not depend on which others have finished.
    draws = torch.rand(columns, n, generator=generator) if temperature else None  # (T, N)
    tokens = torch.full((n, columns), EOS)
    log_probs, entropy = torch.zeros(n, columns), torch.zeros(n, columns)
    going = torch.arange(n)  # rollouts not at EOS yet
    rows = going // rollouts  # the row of each in the batch, shared by all that began alike
    for t in range(columns):
        log_probs_BV = (policy.logits(x) / (temperature or 1.0)).log_softmax(-1)
        probs_BV = log_probs_BV.exp()
        if temperature:  # inverse of the cumulative distribution: one uniform draw a rollout
            is_passed = probs_BV.cumsum(-1).index_select(0, rows) < draws[t, going].unsqueeze(1)
            chosen = is_passed.sum(-1).clamp(max=probs_BV.shape[1] - 1)
        else:
            chosen = log_probs_BV.argmax(-1)[rows]
        tokens[going, t], log_probs[going, t] = chosen, log_probs_BV[rows, chosen]
        entropy[going, t] = -(probs_BV * log_probs_BV).sum(-1)[rows]
        goes_on = chosen != EOS
        going, rows, chosen = going[goes_on], rows[goes_on], chosen[goes_on]
        if t + 1 == columns or not len(going):
            break
        rows, inputs, kept = _branch(rows, chosen, cache.shape[3], probs_BV.shape[1])
        if kept is not None:
            cache = _keep(cache, kept, length + t)
        x = _decode(policy, inputs, cache, length + t)
    lengths = ((tokens != EOS).sum(1) + 1).clamp(max=columns)
    return Rollouts(prompts_PL, tokens, lengths, log_probs, entropy)


def _branch(rows: Tensor, chosen: Tensor, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The next batch, with a row for each (row, token) that rollouts chose.

    rows, chosen: of each rollout that goes on; `width` rows until now. Returns each rollout's row, the rows' tokens, and
    the row whose cache each continues: None where all can stay as they are.
    """
    branches, branch = (rows * vocabulary + chosen).unique(return_inverse=True)
    parents, inputs = branches // vocabulary, branches % vocabulary
    if len(parents) > COMPACT_BELOW * width and not (parents[1:] == parents[:-1]).any():
        return parents[branch], torch.zeros(width, dtype=torch.long).index_copy_(0, parents, inputs), None
    return branch, inputs, parents


def _prefill(policy: Policy, prompts_PL: Tensor) -> tuple[Tensor, Tensor]:
    """The prompts' last rows, (P, d), and a cache of keys and values (layers, 2, L + T - 1, P, h, d/h), filled up to L."""
    (prompts, length), shape = prompts_PL.shape, policy.shape
    positions = length + policy.task.RESPONSE_TOKENS - 1
    cache = torch.empty(shape.layers, 2, positions, prompts, shape.heads, shape.width // shape.heads)
    x, rotary = policy.embedding(prompts_PL.flatten()), policy.rotary[:length].repeat(prompts, 1, 1, 1)
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary).unflatten(0, (prompts, length))
        layer_cache[:, :length] = qkv[:, :, 1:].permute(2, 1, 0, 3, 4)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = block.finish(x, attended.transpose(1, 2).reshape(x.shape))
    return x[length - 1 :: length], cache


def _decode(policy: Policy, tokens_B: Tensor, cache: Tensor, position: int) -> Tensor:
    """One more token for every row: extends the cache at `position`; (B,) -> (B, d)."""
    x, rotary = policy.embedding(tokens_B), policy.rotary[position]
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary)
        layer_cache[:, position] = qkv[:, 1:].transpose(0, 1)
        q, (keys, values) = qkv[:, 0], layer_cache[:, : position + 1]
        # A query per row over a few positions: products and sums beat a batched matmul of single rows.
        weights = (torch.linalg.vecdot(keys, q) * q.shape[-1] ** -0.5).softmax(0)
        x = block.finish(x, (weights.unsqueeze(-1) * values).sum(0).view(x.shape))
    return x


def _keep(cache: Tensor, rows: Tensor, filled: int) -> Tensor:
    """The cache of some rows only; what is not filled yet is not copied."""
    kept = cache.new_empty(*cache.shape[:3], len(rows), *cache.shape[4:])
    torch.index_select(cache[:, :, :filled], 3, rows, out=kept[:, :, :filled])
    return kept
