"""The lab's policy: a decoder-only transformer of OLMo's shape in plain PyTorch (arXiv 2402.00838).

LayerNorm without parameters, rotary positions, SwiGLU, no biases, tied embeddings: the cheapest block on a CPU that
transformers and vLLM know, so an export is a renaming (and, for rotary pairs, a reordering) of tensors.

Shapes: P prompts of L tokens, N rollouts, ordered by prompt, T response tokens, V vocabulary, d model width,
h heads of width d / h, R rows of a packed batch (only real tokens; padding is never computed on).
"""

from __future__ import annotations

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
        """(R, d) -> queries, keys and values, (R, 3, h, d/h); `rotary_R` turns queries and keys and leaves values."""
        qkv = self.qkv(F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS))
        pairs = torch.view_as_complex(qkv.view(len(x_Rd), 3, self.heads, -1, 2))
        return torch.view_as_real(pairs * rotary_R).flatten(-2)

    def finish(self, x_Rd: Tensor, attended_Rd: Tensor) -> Tensor:
        """The rest of the block after attention: residual, then SwiGLU with its residual."""
        x_Rd = x_Rd + self.out(attended_Rd)
        gate, up = self.gate_up(F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS)).chunk(2, -1)
        return x_Rd + self.down(F.silu(gate) * up)


class Packed(NamedTuple):
    """How a batch of rollouts is packed into rows: first the P * L prompt rows, then every response's inputs in order.

    S = L + T - 1 is the longest padded sequence. Only attention sees padded sequences; all else runs on packed rows.
    """

    positions: Tensor  # (R,) position of each packed row in its sequence
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

    def logits(self, x_Rd: Tensor) -> Tensor:
        return F.linear(F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS), self.embedding.weight)

    def forward(
        self, prompts_PL: Tensor, responses_NT: Tensor, lengths_N: Tensor, prompt_of_rollout_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits that predict each response token.

        A prompt is computed once for all rollouts that share it, and padding not at all. Returns the logits of the first
        tokens, (P, V), and of the later ones, packed in order: (sum of (length - 1), V).
        """
        prompts, length = prompts_PL.shape
        packed = _pack(prompts, length, lengths_N, prompt_of_rollout_N)
        inputs = torch.arange(1, responses_NT.shape[1] + 1) < lengths_N[:, None]  # the last token predicts nothing
        x = self.embedding(torch.cat([prompts_PL.flatten(), responses_NT[inputs]]))
        rotary = self.rotary[packed.positions]
        for block in self.blocks:
            x = block.finish(x, _attend(block.project(x, rotary), packed))
        last_prompt_rows = torch.arange(length - 1, prompts * length, length)
        logits = self.logits(torch.cat([x[last_prompt_rows], x[prompts * length :]]))
        return logits[:prompts], logits[prompts:]


def _rotary_table(shape: Shape) -> Tensor:
    """(positions, 3, 1, d/h/2) complex: the rotation of queries, of keys, and 1 for values (arXiv 2104.09864)."""
    pairs = shape.width // shape.heads // 2
    frequency = ROTARY_BASE ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angle = torch.arange(task.PROMPT_TOKENS + task.RESPONSE_TOKENS)[:, None] * frequency
    turn = torch.polar(torch.ones_like(angle), angle)
    return torch.stack([turn, turn, torch.ones_like(turn)], 1)[:, :, None].to(torch.complex64)


def _pack(prompts: int, length: int, lengths_N: Tensor, prompt_of_rollout_N: Tensor) -> Packed:
    rollouts, inputs_N = len(lengths_N), lengths_N - 1
    filled = torch.arange(int(inputs_N.max())) < inputs_N[:, None]  # (N, T - 1)
    prompt_rows = torch.arange(prompts * length).view(prompts, length)
    response_rows = torch.zeros(filled.shape, dtype=torch.long)
    response_rows[filled] = prompts * length + torch.arange(int(inputs_N.sum()))
    rows = torch.cat([prompt_rows[prompt_of_rollout_N], response_rows], 1)
    standing = torch.arange(rows.numel()).view(rows.shape)
    first_rollouts = torch.searchsorted(prompt_of_rollout_N, torch.arange(prompts))
    slots = torch.cat([standing[first_rollouts, :length].flatten(), standing[:, length:][filled]])
    return Packed(slots % rows.shape[1], rows.flatten(), slots, rollouts)


def _attend(qkv: Tensor, packed: Packed) -> Tensor:
    """Causal attention of packed rows (R, 3, h, d/h) -> (R, d)."""
    padded = qkv.flatten(1).index_select(0, packed.rows).view(packed.rollouts, -1, *qkv.shape[1:])
    q, k, v = padded.permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, packed.slots)


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

    prompts: (P, L); responses: (N, T); lengths: (N,) >= 1; prompt_of_rollout: (N,) ascending, each of 0 .. P - 1 in it.
    Returns (N, T), 0 past the length.
    """
    first_PV, later_RV = policy(prompts_PL, responses_NT, lengths_N, prompt_of_rollout_N)
    first_NV = first_PV.log_softmax(-1).index_select(0, prompt_of_rollout_N)
    later_RV = later_RV.log_softmax(-1)
    later = torch.arange(1, responses_NT.shape[1]) < lengths_N[:, None]

    def to_padded(first_N: Tensor, later_R: Tensor) -> Tensor:
        padded = first_N.new_zeros(later.shape).masked_scatter(later, later_R)
        return torch.cat([first_N[:, None], padded], 1)

    def chosen(log_probs_RV: Tensor, tokens_R: Tensor) -> Tensor:
        return log_probs_RV.gather(1, tokens_R[:, None]).squeeze(1)

    log_probs = to_padded(chosen(first_NV, responses_NT[:, 0]), chosen(later_RV, responses_NT[:, 1:][later]))
    if not with_entropy:
        return log_probs, None
    return log_probs, to_padded(-(first_NV.exp() * first_NV).sum(-1), -(later_RV.exp() * later_RV).sum(-1))
