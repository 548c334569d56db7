"""A batch of rollouts as rows without repetition: what rollouts of a prompt have in common from the beginning stands once.

The next token's distribution depends on nothing but what stands before it, so rollouts that begin alike share it, in the
update as in sampling. Each prompt is the trunk of a tree that branches where its rollouts part; no padding is computed on,
except by attention.

Shapes: N rollouts, ordered by prompt, of L prompt tokens and at most T response tokens; S = L + T - 1 positions, for the last
token is no input; R rows; P trees of at most M rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

UNSEEN = -1e9  # added to a score: its weight is exactly 0; not -inf, for padding sees nothing and its gradient would be NaN


class Packed(NamedTuple):
    rows: Tensor  # (N, S) the row of each position; past a rollout's end its last row again
    slots: Tensor  # (R,) a position, of the N * S, at which each row stands
    places: Tensor  # (R,) where each row stands among the trees' P * M places
    padded: Tensor  # (P * M,) the row that stands at each place (row 0 where there is padding)
    mask: Tensor  # (P, 1, M, M) 0 where one row sees another: itself and what stands before it; UNSEEN elsewhere


def pack(length: int, responses_NT: Tensor, lengths_N: Tensor, prompt_of_rollout_N: Tensor) -> Packed:
    """Of N responses of `lengths` tokens, the longest of T, to prompts of `length` tokens, 0 .. P - 1 in ascending order.

    responses: (..., N, T). The runs of a stack share their packing but not their tokens: there trees branch after the prompt.
    """
    n, columns = responses_NT.shape[-2:]
    s = length + columns - 1
    if responses_NT.dim() == 2:  # in lexical order, what begins alike stands together
        keys = torch.cat([prompt_of_rollout_N.unsqueeze(1), responses_NT[:, :-1]], 1)
        order = torch.from_numpy(np.lexsort(keys.T.flip(0).numpy(force=True))).to(keys.device)
        parts = (keys[order].diff(dim=0) != 0).cumsum(1) > 0
        beginnings = torch.zeros_like(keys).index_copy_(0, order[1:], parts.cumsum(0))[:, 1:]
    else:
        beginnings = torch.arange(n).unsqueeze(1).expand(n, columns - 1)
    nodes = torch.cat([torch.arange(length).expand(n, length), beginnings + length + torch.arange(columns - 1) * n], 1)
    position = torch.minimum(torch.arange(s), (length + lengths_N - 2).unsqueeze(1))
    nodes = prompt_of_rollout_N.unsqueeze(1) * (n * s) + nodes.gather(1, position)
    nodes, rows = nodes.unique(return_inverse=True)
    slots = torch.empty_like(nodes)
    slots[rows] = torch.arange(n).unsqueeze(1) * s + position

    tree = nodes // (n * s)
    within = torch.arange(len(tree)) - torch.searchsorted(tree, tree)
    trees, most = int(tree[-1]) + 1, int(within.max()) + 1
    places = tree * most + within
    padded = torch.zeros(trees * most, dtype=torch.long).index_copy_(0, places, torch.arange(len(tree)))
    seen = rows[slots // s].gather(1, torch.minimum(torch.arange(s), slots.unsqueeze(1) % s))
    mask = torch.full((trees, 1, most, most), UNSEEN)
    mask.view(-1)[(places * most).unsqueeze(1) + within[seen]] = 0.0
    return Packed(rows, slots, places, padded, mask)
