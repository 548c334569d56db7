"""Rollouts of a policy: the prompt is prefilled once for its G rollouts, finished rows leave the batch.

Shapes: P prompts, G rollouts each, N = P * G rows ordered by prompt, T response tokens, V vocabulary; B = N rows in the batch,
of a stack of policies the rows of every run, one run after the other. `...` is nothing, or the runs of a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .policy import Policy
from .task import EOS, RESPONSE_TOKENS

COMPACT_BELOW = 0.75  # copying the cache for fewer finished rows costs more than decoding them on


class Rollouts(NamedTuple):
    """G sampled responses to each of P prompts, ordered by prompt; past a response's length tokens are EOS, floats 0."""

    prompts: Tensor  # (..., P, L)
    tokens: Tensor  # (..., N, T)
    lengths: Tensor  # (..., N) tokens, EOS included
    log_probs: Tensor  # (..., N, T) of the sampled tokens, nats
    entropy: Tensor  # (..., N, T) of the distributions sampled from, nats

    @property
    def mask(self) -> Tensor:
        """(..., N, T), true on response tokens."""
        return torch.arange(self.tokens.shape[-1]) < self.lengths.unsqueeze(-1)

    @property
    def prompt_of_rollout(self) -> Tensor:
        """(N,) index of each rollout's prompt: the group id."""
        prompts = self.prompts.shape[-2]
        return torch.arange(prompts).repeat_interleave(self.tokens.shape[-2] // prompts)


@torch.inference_mode()
def sample(
    policy: Policy,
    prompts_PL: Tensor,
    rollouts: int,
    generator: torch.Generator | Sequence[torch.Generator],
    temperature: float = 1.0,
) -> Rollouts:
    """`rollouts` responses to each prompt, at most 13 tokens; temperature 0 takes the likeliest token (greedy).

    prompts: (..., P, L); a stack of policies takes a generator for each of its runs.
    """
    *runs, prompts, length = prompts_PL.shape
    n, batch, shape = prompts * rollouts, prompts_PL[..., 0].numel() * rollouts, policy.shape
    cache = torch.empty(shape.layers, 2, length + RESPONSE_TOKENS - 1, batch, shape.heads, shape.width // shape.heads)
    x = _prefill(policy, prompts_PL, rollouts, cache)

    # Drawn at once: what a rollout draws depends neither on which others have finished nor on what shares its kernels.
    draws = _draws(generator if runs else [generator], n).to(x.device) if temperature else None  # (T, B)
    tokens = torch.full((batch, RESPONSE_TOKENS), EOS)
    log_probs, entropy = torch.zeros(batch, RESPONSE_TOKENS), torch.zeros(batch, RESPONSE_TOKENS)
    rows, going = torch.arange(batch), torch.ones(batch, dtype=torch.bool)  # still in the batch; not at EOS yet
    for t in range(RESPONSE_TOKENS):
        drawn = draws[t, rows] if temperature else None
        chosen, chosen_log_prob, chosen_entropy = _choose(policy.logits(x).flatten(0, -2), temperature, drawn)
        tokens[rows, t] = torch.where(going, chosen, EOS)
        log_probs[rows, t], entropy[rows, t] = chosen_log_prob * going, chosen_entropy * going
        going = going & (chosen != EOS)
        going_of_run = going.view(*runs, -1)
        most = int(going_of_run.sum(-1).max())
        if t + 1 == RESPONSE_TOKENS or not most:
            break
        if most < COMPACT_BELOW * going_of_run.shape[-1]:
            kept = _first_going(going_of_run, most)
            rows, chosen, going = rows[kept], chosen[kept], going[kept]
            cache = _keep(cache, kept, length + t)
        x = _decode(policy, chosen.view(*runs, -1), cache, length + t)
    lengths = ((tokens != EOS).sum(1) + 1).clamp(max=RESPONSE_TOKENS)
    return Rollouts(prompts_PL, *(part.unflatten(0, (*runs, n)) for part in (tokens, lengths, log_probs, entropy)))


def _draws(generators: Sequence[torch.Generator], n: int) -> Tensor:
    """(T, B) uniform numbers, run by run from its own generator."""
    return torch.cat([torch.rand(RESPONSE_TOKENS, n, generator=g, device=g.device) for g in generators], 1)


def _prefill(policy: Policy, prompts_PL: Tensor, rollouts: int, cache: Tensor) -> Tensor:
    """Fill the cache with every prompt's keys and values; returns the last prompt rows, repeated: (..., N, d)."""
    prompts, length = prompts_PL.shape[-2:]
    x, rotary = policy.embed(prompts_PL.flatten(-2)), policy.rotary[:length].repeat(prompts, 1, 1, 1)
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary).flatten(0, -4).unflatten(0, (-1, length))  # of all prompts of all runs
        by_position = qkv[:, :, 1:].permute(2, 1, 0, 3, 4).unsqueeze(3)  # (2, L, prompts, 1, h, d/h)
        layer_cache[:, :length].unflatten(2, (-1, rollouts)).copy_(by_position)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = block.finish(x, attended.transpose(1, 2).reshape(x.shape))
    return x[..., length - 1 :: length, :].repeat_interleave(rollouts, -2)


def _decode(policy: Policy, tokens_N: Tensor, cache: Tensor, position: int) -> Tensor:
    """One more token for every row: extends the cache at `position`; (..., N) -> (..., N, d)."""
    x, rotary = policy.embed(tokens_N), policy.rotary[position]
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary).flatten(0, -4)
        layer_cache[:, position] = qkv[:, 1:].transpose(0, 1)
        q, (keys, values) = qkv[:, 0], layer_cache[:, : position + 1]
        # A query per row over a few positions: products and sums beat a batched matmul of single rows.
        weights = (torch.linalg.vecdot(keys, q) * q.shape[-1] ** -0.5).softmax(0)
        x = block.finish(x, (weights.unsqueeze(-1) * values).sum(0).view(x.shape))
    return x


def _choose(logits_BV: Tensor, temperature: float, draws_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with their log-probs and the entropy of what they were drawn from, each (B,); greedy without draws."""
    log_probs = (logits_BV / (temperature or 1.0)).log_softmax(-1)
    probs = log_probs.exp()
    if draws_B is None:
        tokens = log_probs.argmax(-1)
    else:  # inverse of the cumulative distribution: one uniform draw a row
        tokens = (probs.cumsum(-1) < draws_B[:, None]).sum(-1).clamp(max=probs.shape[-1] - 1)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1), -(probs * log_probs).sum(-1)


def _first_going(going: Tensor, most: int) -> Tensor:
    """Of each run `most` rows, those that go on first: indices into the batch, (runs * most,)."""
    order = (~going).sort(stable=True, dim=-1).indices[..., :most]
    if going.dim() == 2:
        order = order + torch.arange(len(going))[:, None] * going.shape[1]
    return order.flatten()


def _keep(cache: Tensor, rows: Tensor, filled: int) -> Tensor:
    """The cache of some rows only; what is not filled yet is not copied."""
    kept = cache.new_empty(*cache.shape[:3], len(rows), *cache.shape[4:])
    kept[:, :, :filled] = cache[:, :, :filled].index_select(3, rows)
    return kept
