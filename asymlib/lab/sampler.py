"""Rollouts of a policy: the prompt is prefilled once for its G rollouts, finished rows leave the batch.

Shapes: P prompts, G rollouts each, N = P * G rows ordered by prompt, T response tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .policy import Policy
from .task import EOS, RESPONSE_TOKENS

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
        return torch.arange(self.tokens.shape[1]) < self.lengths[:, None]

    @property
    def prompt_of_rollout(self) -> Tensor:
        """(N,) index of each rollout's prompt: the group id."""
        return torch.arange(len(self.prompts)).repeat_interleave(len(self.tokens) // len(self.prompts))


@torch.inference_mode()
def sample(policy: Policy, prompts_PL: Tensor, rollouts: int, generator: torch.Generator, temperature: float = 1.0) -> Rollouts:
    """`rollouts` responses to each prompt, at most 13 tokens; temperature 0 takes the likeliest token (greedy)."""
    prompts, length = prompts_PL.shape
    n, shape = prompts * rollouts, policy.shape
    cache = torch.empty(shape.layers, 2, length + RESPONSE_TOKENS - 1, n, shape.heads, shape.width // shape.heads)
    x = _prefill(policy, prompts_PL, rollouts, cache)

    # Drawn at once: what a rollout draws depends neither on which others have finished nor on what shares its kernels.
    draws = torch.rand(RESPONSE_TOKENS, n, generator=generator) if temperature else None  # (T, N)
    tokens = torch.full((n, RESPONSE_TOKENS), EOS)
    lengths = torch.full((n,), RESPONSE_TOKENS)
    log_probs, entropy = torch.zeros(n, RESPONSE_TOKENS), torch.zeros(n, RESPONSE_TOKENS)
    rows, going = torch.arange(n), torch.ones(n, dtype=torch.bool)  # the rows still in the batch; those not at EOS yet
    for t in range(RESPONSE_TOKENS):
        drawn = draws[t, rows] if temperature else None
        chosen, chosen_log_prob, chosen_entropy = _choose(policy.logits(x), temperature, drawn)
        tokens[rows, t] = torch.where(going, chosen, EOS)
        log_probs[rows, t], entropy[rows, t] = chosen_log_prob * going, chosen_entropy * going
        stops = going & (chosen == EOS)
        lengths[rows[stops]] = t + 1
        going = going & ~stops
        if t + 1 == RESPONSE_TOKENS or not going.any():
            break
        if going.sum() < COMPACT_BELOW * len(rows):
            kept = going.nonzero().squeeze(1)
            rows, chosen, going = rows[kept], chosen[kept], going[kept]
            cache = _keep(cache, kept, length + t)
        x = _decode(policy, chosen, cache, length + t)
    return Rollouts(prompts_PL, tokens, lengths, log_probs, entropy)


def _prefill(policy: Policy, prompts_PL: Tensor, rollouts: int, cache: Tensor) -> Tensor:
    """Fill the cache with every prompt's keys and values; returns the last prompt rows, repeated: (N, d)."""
    prompts, length = prompts_PL.shape
    x, rotary = policy.embedding(prompts_PL.flatten()), policy.rotary[:length].repeat(prompts, 1, 1, 1)
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary).unflatten(0, (prompts, length))
        by_position = qkv[:, :, 1:].permute(2, 1, 0, 3, 4).unsqueeze(3)  # (2, L, P, 1, h, d/h)
        layer_cache[:, :length].unflatten(2, (prompts, rollouts)).copy_(by_position)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = block.finish(x, attended.transpose(1, 2).reshape(prompts * length, -1))
    return x[length - 1 :: length].repeat_interleave(rollouts, 0)


def _decode(policy: Policy, tokens_N: Tensor, cache: Tensor, position: int) -> Tensor:
    """One more token for every row: extends the cache at `position` and returns (N, d)."""
    x, rotary = policy.embedding(tokens_N), policy.rotary[position]
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary)
        layer_cache[:, position] = qkv[:, 1:].transpose(0, 1)
        q, (keys, values) = qkv[:, 0], layer_cache[:, : position + 1]
        # A query per row over a few positions: products and sums beat a batched matmul of single rows.
        weights = (torch.linalg.vecdot(keys, q) * q.shape[-1] ** -0.5).softmax(0)
        x = block.finish(x, (weights.unsqueeze(-1) * values).sum(0).flatten(1))
    return x


def _choose(logits_NV: Tensor, temperature: float, draws_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with their log-probs and the entropy of what they were drawn from, each (N,); greedy without `draws`."""
    log_probs = (logits_NV / (temperature or 1.0)).log_softmax(-1)
    probs = log_probs.exp()
    if draws_N is None:
        tokens = log_probs.argmax(-1)
    else:  # inverse of the cumulative distribution: one uniform draw a row
        tokens = (probs.cumsum(-1) < draws_N[:, None]).sum(-1).clamp(max=probs.shape[-1] - 1)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1), -(probs * log_probs).sum(-1)


def _keep(cache: Tensor, rows: Tensor, filled: int) -> Tensor:
    """The cache of some rows only; what is not filled yet is not copied."""
    kept = cache.new_empty(*cache.shape[:3], len(rows), *cache.shape[4:])
    kept[:, :, :filled] = cache[:, :, :filled].index_select(3, rows)
    return kept
