"""A batch of rollouts as rows without repetition: what rollouts of a prompt have in common from the beginning stands once.

The next token's distribution depends on nothing but what stands before it, so rollouts that begin alike share it, in the
update as in sampling. Each prompt is the trunk of a tree that branches where its rollouts part; no padding is computed on,
except by attention.

Shapes: N rollouts, ordered by prompt, of L prompt tokens and at most T response tokens; S = L + T - 1 positions, for the last
token is no input; R rows; P trees of at most M rows.
"""

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
    """Of N responses of `lengths` tokens, the longest of T, to prompts of `length` tokens, 0 .. P - 1 in ascending order."""
    n, columns = responses_NT.shape
    s = length + columns - 1
    lengths, prompts = lengths_N.numpy(), prompt_of_rollout_N.numpy()
    keys = np.column_stack([prompts, responses_NT[:, :-1].numpy()])
    order = np.lexsort(keys.T[::-1])  # in lexical order, what begins alike stands together
    parts = np.cumsum(keys[order[1:]] != keys[order[:-1]], axis=1) > 0
    beginnings = np.zeros_like(keys)
    beginnings[order[1:]] = parts.cumsum(0)
    trunk = np.broadcast_to(np.arange(length), (n, length))
    nodes = np.concatenate([trunk, beginnings[:, 1:] + length + np.arange(columns - 1) * n], 1)
    position = np.minimum(np.arange(s), (length + lengths - 2)[:, None])
    nodes = prompts[:, None] * (n * s) + np.take_along_axis(nodes, position, 1)
    nodes, slots, rows = np.unique(nodes, return_index=True, return_inverse=True)
    rows = rows.reshape(n, s)

    tree, row = nodes // (n * s), np.arange(len(nodes))
    sizes = np.bincount(tree)
    within, most = row - (np.cumsum(sizes) - sizes)[tree], sizes.max()
    places = tree * most + within
    padded = np.zeros(len(sizes) * most, dtype=np.int64)
    padded[places] = row
    seen = np.take_along_axis(rows[slots // s], np.minimum(np.arange(s), (slots % s)[:, None]), 1)
    mask = np.full((len(sizes), 1, most, most), UNSEEN, dtype=np.float32)
    mask.reshape(-1)[(places * most)[:, None] + within[seen]] = 0.0
    return Packed(*(torch.from_numpy(part) for part in (rows, slots, places, padded, mask)))
