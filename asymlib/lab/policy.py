"""The lab's policy: a decoder-only transformer of OLMo's shape in plain PyTorch (arXiv 2402.00838).

LayerNorm without parameters, rotary positions, SwiGLU, no biases, tied embeddings: the cheapest block on a CPU that
transformers and vLLM know, so an export is a renaming (and, for rotary pairs, a reordering) of tensors.

Shapes: P prompts of L tokens, N rollouts, ordered by prompt, T response tokens, V vocabulary, d model width,
h heads of width d / h, R rows of a packed batch (`packing.py`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packing import Packed, pack
from .tasks import TASKS, Task


class Shape(NamedTuple):
    width: int
    layers: int
    heads: int
    hidden: int  # SwiGLU width


SHAPES = {"small": Shape(64, 3, 2, 176), "base": Shape(128, 3, 4, 352)}  # 153k and 607k parameters on the number walk
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
        """(R, d) -> queries, keys and values, (R, 3, h, d/h); `rotary_R` turns queries and keys, not values."""
        qkv = self.qkv(_normed(x_Rd))
        pairs = torch.view_as_complex(qkv.unflatten(-1, (3, self.heads, -1, 2)))
        return torch.view_as_real(pairs * rotary_R).flatten(-2)

    def finish(self, x_Rd: Tensor, attended_Rd: Tensor) -> Tensor:
        """The rest of the block after attention: residual, then SwiGLU with its residual."""
        x_Rd = x_Rd + self.out(attended_Rd)
        normed = _normed(x_Rd)
        gate, up = self.gate_up.weight.chunk(2)  # the weight's halves: joining the gradients of x's would copy more
        return x_Rd + self.down(F.silu(F.linear(normed, gate)) * F.linear(normed, up))


def _normed(x_Rd: Tensor) -> Tensor:
    return F.layer_norm(x_Rd, x_Rd.shape[-1:], eps=NORM_EPS)


class Policy(nn.Module):
    """Next-token policy over its task's vocabulary. `Policy("small", seed=0)` draws its weights from the seed."""

    def __init__(self, name: str, seed: int = 0, task: str = "walk"):
        super().__init__()
        self.name, self.shape, self.task_name = name, SHAPES[name], task
        self.embedding = nn.Embedding(len(self.task.VOCABULARY), self.shape.width)
        self.blocks = nn.ModuleList(Block(self.shape) for _ in range(self.shape.layers))
        positions, generator = self.task.PROMPT_TOKENS + self.task.RESPONSE_TOKENS, torch.Generator().manual_seed(seed)
        self.register_buffer("rotary", _rotary_table(self.shape, positions), persistent=False)
        for part, weight in self.named_parameters():
            ends_block = ".out." in part or ".down." in part
            nn.init.normal_(weight, std=0.02 / (2 * self.shape.layers) ** (0.5 * ends_block), generator=generator)

    @property
    def task(self) -> Task:
        return TASKS[self.task_name]

    def logits(self, x_Rd: Tensor) -> Tensor:
        return F.linear(_normed(x_Rd), self.embedding.weight)

    def forward(self, tokens_R: Tensor, packed: Packed) -> Tensor:
        """Logits of what follows each packed row: (R,) -> (R, V)."""
        x, rotary = self.embedding(tokens_R), self.rotary[packed.slots % packed.rows.shape[1]]
        for block in self.blocks:
            x = block.finish(x, _attend(block.project(x, rotary), packed))
        return self.logits(x)


def _rotary_table(shape: Shape, positions: int) -> Tensor:
    """(positions, 3, 1, d/h/2) complex: the rotation of queries, of keys, and 1 for values (arXiv 2104.09864)."""
    pairs = shape.width // shape.heads // 2
    frequency = ROTARY_BASE ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angle = torch.arange(positions)[:, None] * frequency
    turn = torch.polar(torch.ones_like(angle), angle)
    return torch.stack([turn, turn, torch.ones_like(turn)], 1)[:, :, None].to(torch.complex64)


def _attend(qkv: Tensor, packed: Packed) -> Tensor:
    """Attention of packed rows to their ancestors and themselves: (R, 3, h, d/h) -> (R, d)."""
    padded = qkv.flatten(1).index_select(0, packed.padded)
    q, k, v = padded.view(-1, packed.mask.shape[-1], *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=packed.mask)
    return out.transpose(1, 2).reshape(len(packed.padded), -1).index_select(0, packed.places)


def token_log_probs(
    policy: Policy, prompts_PL: Tensor, responses_NT: Tensor, lengths_N: Tensor, prompt_of_rollout_N: Tensor, *,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Log-prob of each response token and, if asked, the entropy of its distribution, in nats at temperature 1.

    prompts: (P, L); responses: (N, T); lengths: (N,) >= 1; prompt_of_rollout: (N,) ascending, each of 0 .. P - 1 in it.
    Returns (N, T), 0 past the length.
    """
    length, columns = prompts_PL.shape[1], int(lengths_N.max())
    responses = responses_NT[:, :columns]
    packed = pack(length, responses, lengths_N, prompt_of_rollout_N)
    tokens = torch.cat([prompts_PL.index_select(0, prompt_of_rollout_N), responses[:, :-1]], 1)
    log_probs_RV = policy(tokens.flatten().index_select(0, packed.slots), packed).log_softmax(-1)
    predicting = packed.rows[:, length - 1 :]  # the row whose distribution a token was drawn from
    is_past = torch.arange(columns) >= lengths_N.unsqueeze(1)

    def to_padded(values: Tensor, index_NT: Tensor) -> Tensor:
        chosen = values.gather(0, index_NT.flatten()).view(index_NT.shape).masked_fill(is_past, 0.0)
        return F.pad(chosen, (0, responses_NT.shape[1] - columns))

    log_probs = to_padded(log_probs_RV.flatten(), predicting * log_probs_RV.shape[-1] + responses)
    if not with_entropy:
        return log_probs, None
    return log_probs, to_padded(-(log_probs_RV.exp() * log_probs_RV).sum(-1), predicting)
