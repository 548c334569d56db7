"""The lab's policy: a decoder-only transformer of OLMo's shape in plain PyTorch (arXiv 2402.00838).

LayerNorm without parameters, rotary positions, SwiGLU, no biases, tied embeddings: the cheapest block on a CPU that
transformers and vLLM know, so an export is a renaming (and, for rotary pairs, a reordering) of tensors.

Shapes: P prompts of L tokens, N rollouts, ordered by prompt, T response tokens, V vocabulary, d model width,
h heads of width d / h, R rows of a packed batch (only real tokens; padding is never computed on). `...` is nothing for one
policy and the number of runs for a stack of policies (`stack_policies`), whose matrix products run as one.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import task


class Shape(NamedTuple):
    width: int
    layers: int
    heads: int
    hidden: int  # SwiGLU width


SHAPES = {"small": Shape(64, 3, 2, 176), "base": Shape(128, 3, 4, 352)}  # 153k and 607k parameters
NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        d, self.heads = shape.width, shape.heads
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.gate_up = nn.Linear(d, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, d, bias=False)

    def project(self, x_Rd: Tensor, rotary_R: Tensor) -> Tensor:
        """(..., R, d) -> queries, keys and values, (..., R, 3, h, d/h); `rotary_R` turns queries and keys, not values."""
        qkv = _times(F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS), self.qkv)
        pairs = torch.view_as_complex(qkv.unflatten(-1, (3, self.heads, -1, 2)))
        return torch.view_as_real(pairs * rotary_R).flatten(-2)

    def finish(self, x_Rd: Tensor, attended_Rd: Tensor) -> Tensor:
        """The rest of the block after attention: residual, then SwiGLU with its residual."""
        x_Rd = x_Rd + _times(attended_Rd, self.out)
        gate, up = _times(F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS), self.gate_up).chunk(2, -1)
        return x_Rd + _times(F.silu(gate) * up, self.down)


def _times(x: Tensor, linear: nn.Module) -> Tensor:
    """`linear` of x; of a stack, each run's rows times its own weight."""
    return x @ linear.weight.mT


class Packed(NamedTuple):
    """How a batch of rollouts is packed into rows: first the P * L prompt rows, then every response's inputs in order.

    S = L + T - 1 is the longest padded sequence. Only attention sees padded sequences; all else runs on packed rows.
    """

    positions: Tensor  # (R,) position of each packed row in its sequence
    filled: Tensor  # (R - P * L,) where in the (N, T - 1) responses' inputs each packed response row stands
    rows: Tensor  # (N * S,) the packed row that stands at each padded position (row 0 where there is padding)
    slots: Tensor  # (R,) one padded position at which each packed row stands
    rollouts: int


class Policy(nn.Module):
    """Next-token policy over `task.VOCABULARY`. `Policy("small", seed=0)` draws its weights from the seed."""

    def __init__(self, name: str, seed: int = 0):
        super().__init__()
        self.name, self.shape = name, SHAPES[name]
        self.embedding = nn.Embedding(len(task.VOCABULARY), self.shape.width)
        self.blocks = nn.ModuleList(Block(self.shape) for _ in range(self.shape.layers))
        self.register_buffer("rotary", _rotary_table(self.shape), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        residual_std = 0.02 / (2 * self.shape.layers) ** 0.5
        for name_, weight in self.named_parameters():
            std = residual_std if ".out." in name_ or ".down." in name_ else 0.02
            nn.init.normal_(weight, std=std, generator=generator)

    @property
    def is_stack(self) -> bool:
        return self.embedding.weight.dim() == 3

    def embed(self, tokens: Tensor) -> Tensor:
        """(..., n) -> (..., n, d)."""
        weight = self.embedding.weight
        if self.is_stack:
            tokens = tokens + torch.arange(len(weight))[:, None] * weight.shape[1]
        return F.embedding(tokens, weight.flatten(0, -2))

    def logits(self, x_Rd: Tensor) -> Tensor:
        return _times(F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS), self.embedding)

    def forward(self, prompts_PL: Tensor, responses_NT: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
        """Logits that predict each response token.

        A prompt is computed once for all rollouts that share it, and padding not at all. Returns the logits of the first
        tokens, (..., P, V), and of the later ones, packed in order: (..., sum of (length - 1), V).
        """
        prompts, length = prompts_PL.shape[-2:]
        inputs = responses_NT[..., :-1].flatten(-2).index_select(-1, packed.filled)
        x = self.embed(torch.cat([prompts_PL.flatten(-2), inputs], -1))
        rotary = self.rotary[packed.positions]
        for block in self.blocks:
            x = block.finish(x, _attend(block.project(x, rotary), packed))
        x = torch.cat([x[..., length - 1 : prompts * length : length, :], x[..., prompts * length :, :]], -2)
        logits = self.logits(x)
        return logits[..., :prompts, :], logits[..., prompts:, :]


def stack_policies(policies: list[Policy]) -> Policy:
    """One policy whose weights are those of all, (runs, ...): the same code then runs every policy on its own rows."""
    stack = copy.deepcopy(policies[0])
    for name, weight in stack.named_parameters():
        weight.data = torch.stack([policy.get_parameter(name).data for policy in policies])
    return stack


def _rotary_table(shape: Shape) -> Tensor:
    """(positions, 3, 1, d/h/2) complex: the rotation of queries, of keys, and 1 for values (arXiv 2104.09864)."""
    pairs = shape.width // shape.heads // 2
    frequency = ROTARY_BASE ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angle = torch.arange(task.PROMPT_TOKENS + task.RESPONSE_TOKENS)[:, None] * frequency
    turn = torch.polar(torch.ones_like(angle), angle)
    return torch.stack([turn, turn, torch.ones_like(turn)], 1)[:, :, None].to(torch.complex64)


def _pack(prompts: int, length: int, tokens: int, lengths_N: Tensor, prompt_of_rollout_N: Tensor) -> Packed:
    """Of P prompts of `length` tokens and N responses in `tokens` columns."""
    inputs_N = lengths_N - 1  # the last token predicts nothing
    is_input = torch.arange(tokens - 1) < inputs_N[:, None]
    filled = is_input.flatten().nonzero().squeeze(1)
    is_input = is_input[:, : int(inputs_N.max())]
    prompt_rows = torch.arange(prompts * length).view(prompts, length)
    response_rows = torch.zeros(is_input.shape, dtype=torch.long)
    response_rows[is_input] = prompts * length + torch.arange(len(filled))
    rows = torch.cat([prompt_rows[prompt_of_rollout_N], response_rows], 1)
    standing = torch.arange(rows.numel()).view(rows.shape)
    first_rollouts = torch.searchsorted(prompt_of_rollout_N, torch.arange(prompts))
    slots = torch.cat([standing[first_rollouts, :length].flatten(), standing[:, length:][is_input]])
    return Packed(slots % rows.shape[1], filled, rows.flatten(), slots, len(lengths_N))


def _attend(qkv: Tensor, packed: Packed) -> Tensor:
    """Causal attention of packed rows (..., R, 3, h, d/h) -> (..., R, d)."""
    runs, rollouts = qkv.shape[:-4], packed.rollouts
    padded = qkv.flatten(-3).index_select(-2, packed.rows)
    q, k, v = padded.view(-1, len(packed.rows) // rollouts, *qkv.shape[-3:]).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).reshape(*runs, len(packed.rows), -1).index_select(-2, packed.slots)


def token_log_probs(
    policy: Policy,
    prompts_PL: Tensor,
    responses_NT: Tensor,
    lengths_N: Tensor,
    prompt_of_rollout_N: Tensor,
    *,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-prob of each response token and, if asked, the entropy of its distribution, in nats at temperature 1.

    prompts: (..., P, L); responses: (..., N, T); lengths: (N,) >= 1; prompt_of_rollout: (N,) ascending, each of 0 .. P - 1 in
    it; both are shared by the runs of a stack. Returns (..., N, T), 0 past the length.
    """
    packed = _pack(*prompts_PL.shape[-2:], responses_NT.shape[-1], lengths_N, prompt_of_rollout_N)
    first_PV, later_RV = policy(prompts_PL, responses_NT, packed)
    first_NV = first_PV.log_softmax(-1).index_select(-2, prompt_of_rollout_N)
    later_RV = later_RV.log_softmax(-1)

    def to_padded(first_N: Tensor, later_R: Tensor) -> Tensor:
        shape = responses_NT[..., 1:].shape
        padded = first_N.new_zeros(shape).flatten(-2).index_copy(-1, packed.filled, later_R).view(shape)
        return torch.cat([first_N.unsqueeze(-1), padded], -1)

    def chosen(log_probs_RV: Tensor, tokens_R: Tensor) -> Tensor:
        return log_probs_RV.gather(-1, tokens_R.unsqueeze(-1)).squeeze(-1)

    later_tokens_R = responses_NT[..., 1:].flatten(-2).index_select(-1, packed.filled)
    log_probs = to_padded(chosen(first_NV, responses_NT[..., 0]), chosen(later_RV, later_tokens_R))
    if not with_entropy:
        return log_probs, None
    return log_probs, to_padded(-(first_NV.exp() * first_NV).sum(-1), -(later_RV.exp() * later_RV).sum(-1))
