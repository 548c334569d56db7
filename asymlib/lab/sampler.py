"""Rollouts of a policy: what rollouts of a prompt have in common from the beginning is computed once, finished ones leave.

Shapes: P prompts, G rollouts each, N = P * G rollouts ordered by prompt, T response tokens, V vocabulary; B rows in the batch,
of a stack of policies the rows of every run, one run after the other. `...` is nothing, or the runs of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .policy import Policy
from .task import EOS, RESPONSE_TOKENS, VOCABULARY

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
    n, batch = prompts * rollouts, prompts_PL[..., 0].numel() * rollouts
    x, cache = _prefill(policy, prompts_PL)

    # Drawn at once: what a rollout draws depends neither on which others have finished nor on what shares its kernels.
    draws = _draws(generator if runs else [generator], n).to(x.device) if temperature else None  # (T, N)
    tokens = torch.full((batch, RESPONSE_TOKENS), EOS)
    log_probs, entropy = torch.zeros(batch, RESPONSE_TOKENS), torch.zeros(batch, RESPONSE_TOKENS)
    going = torch.arange(batch)  # rollouts not at EOS yet
    rows = going // rollouts  # the row of each in the batch, shared by all that began alike
    for t in range(RESPONSE_TOKENS):
        log_probs_BV = (policy.logits(x).flatten(0, -2) / (temperature or 1.0)).log_softmax(-1)
        probs_BV = log_probs_BV.exp()
        if temperature:  # inverse of the cumulative distribution: one uniform draw a rollout
            is_passed = probs_BV.cumsum(-1).index_select(0, rows) < draws[t, going].unsqueeze(1)
            chosen = is_passed.sum(-1).clamp(max=len(VOCABULARY) - 1)
        else:
            chosen = log_probs_BV.argmax(-1)[rows]
        tokens[going, t], log_probs[going, t] = chosen, log_probs_BV[rows, chosen]
        entropy[going, t] = -(probs_BV * log_probs_BV).sum(-1)[rows]
        goes_on = chosen != EOS
        going, rows, chosen = going[goes_on], rows[goes_on], chosen[goes_on]
        if t + 1 == RESPONSE_TOKENS or not len(going):
            break
        rows, inputs, kept = _branch(rows, chosen, cache.shape[3] // math.prod(runs), math.prod(runs))
        if kept is not None:
            cache = _keep(cache, kept, length + t)
        x = _decode(policy, inputs.view(*runs, -1), cache, length + t)
    lengths = ((tokens != EOS).sum(1) + 1).clamp(max=RESPONSE_TOKENS)
    return Rollouts(prompts_PL, *(part.unflatten(0, (*runs, n)) for part in (tokens, lengths, log_probs, entropy)))


def _branch(rows: Tensor, chosen: Tensor, width: int, runs: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The next batch, with a row for each (row, token) that rollouts chose; all runs have as many rows as the one with most.

    rows, chosen: of each rollout that goes on; `width` rows a run until now. Returns each rollout's row, the rows' tokens, and
    the row whose cache each continues: None where all can stay as they are.
    """
    branches, branch = (rows * len(VOCABULARY) + chosen).unique(return_inverse=True)
    parents, inputs = branches // len(VOCABULARY), branches % len(VOCABULARY)
    if len(parents) > COMPACT_BELOW * width * runs and not (parents[1:] == parents[:-1]).any():
        return parents[branch], torch.zeros(width * runs, dtype=torch.long).index_copy_(0, parents, inputs), None
    run = parents // width
    sizes = run.bincount(minlength=runs)
    most = int(sizes.max())
    places = torch.arange(len(run)) + (torch.arange(1, runs + 1) * most - sizes.cumsum(0))[run]
    kept = (torch.arange(runs) * width).repeat_interleave(most).index_copy_(0, places, parents)
    return places[branch], torch.zeros(most * runs, dtype=torch.long).index_copy_(0, places, inputs), kept


def _draws(generators: Sequence[torch.Generator], n: int) -> Tensor:
    """(T, B) uniform numbers, run by run from its own generator."""
    return torch.cat([torch.rand(RESPONSE_TOKENS, n, generator=g, device=g.device) for g in generators], 1)


def _prefill(policy: Policy, prompts_PL: Tensor) -> tuple[Tensor, Tensor]:
    """The prompts' last rows, (..., P, d), and a cache of keys and values (layers, 2, L + T - 1, B, h, d/h), filled up to L."""
    prompts, length = prompts_PL.shape[-2:]
    batch, shape = prompts_PL[..., 0].numel(), policy.shape
    cache = torch.empty(shape.layers, 2, length + RESPONSE_TOKENS - 1, batch, shape.heads, shape.width // shape.heads)
    x, rotary = policy.embed(prompts_PL.flatten(-2)), policy.rotary[:length].repeat(prompts, 1, 1, 1)
    for block, layer_cache in zip(policy.blocks, cache, strict=True):
        qkv = block.project(x, rotary).flatten(0, -4).unflatten(0, (-1, length))  # of all prompts of all runs
        layer_cache[:, :length] = qkv[:, :, 1:].permute(2, 1, 0, 3, 4)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = block.finish(x, attended.transpose(1, 2).reshape(x.shape))
    return x[..., length - 1 :: length, :], cache


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


def _keep(cache: Tensor, rows: Tensor, filled: int) -> Tensor:
    """The cache of some rows only; what is not filled yet is not copied."""
    kept = cache.new_empty(*cache.shape[:3], len(rows), *cache.shape[4:])
    torch.index_select(cache[:, :, :filled], 3, rows, out=kept[:, :, :filled])
    return kept
