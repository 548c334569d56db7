"""Prompts that are all enumerated, graded by difficulty, and split once for all by a hash: a tenth is held out."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .task import EOS, Benchmark


class GradedPrompts:
    """Prompts 0 .. len(grade) - 1. Only those of `training_grades` are trained on; a grade that no set names is never used."""

    def __init__(self, grade: Tensor, training_grades: tuple[int, ...]):
        self.grade, self.held_out = grade, _hash(torch.arange(len(grade))) % 10 == 0
        self._pools = [((grade == one) & ~self.held_out).nonzero().squeeze(1) for one in training_grades]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,) indices of training prompts, their grade uniform over the training grades."""
        which = torch.randint(len(self._pools), (n,), generator=generator)
        draw = torch.rand(n, generator=generator, dtype=torch.float64)
        index = torch.empty(n, dtype=torch.long)
        for i, pool in enumerate(self._pools):
            index[which == i] = pool[(draw[which == i] * len(pool)).long()]
        return index

    def choose(self, benchmarks: Mapping[str, Benchmark]) -> dict[str, Tensor]:
        """Indices of held-out prompts for each benchmark, (size,); none is chosen twice."""
        generator, free, sets = torch.Generator().manual_seed(0), self.held_out.clone(), {}
        for name, (grades, size, _) in benchmarks.items():
            parts = []
            for i, grade in enumerate(grades):
                share = size * (i + 1) // len(grades) - size * i // len(grades)
                pool = (free & (self.grade == grade)).nonzero().squeeze(1)
                parts.append(pool[torch.randperm(len(pool), generator=generator)[:share]])
                free[parts[-1]] = False
            sets[name] = torch.cat(parts)
        return sets


def _hash(index: Tensor) -> Tensor:
    """A fixed 31-bit mix of an index (xor-shift-multiply), so that the split never depends on a random generator."""
    for _ in range(2):
        index = (((index >> 16) ^ index) * 0x45D9F3B) & 0x7FFFFFFF
    return (index >> 16) ^ index


def in_hindsight(
    chains: Tensor, steps: Tensor, numbers: range, generator: torch.Generator, *, lost: float, slip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Random chains as noisy demonstrations: the target is where a row's first chain stands after `steps`, the demonstration
    is the row's chain that gets there soonest.

    chains: (D, C, M, K) tokens, M steps of K tokens, of which the last is the number reached; steps: (D,); numbers: their
    tokens. Each written number is any with probability `slip`, and a share `lost` of the targets is any. Returns the targets,
    (D,) tokens; the responses, (D, M K + 1), EOS after their end; their lengths, (D,).
    """
    (rows, most), any_number = (len(chains), chains.shape[2]), (numbers.start, numbers.stop)
    each, reached = torch.arange(rows), chains[..., -1]
    target = reached[each, 0, steps - 1]
    arrived = reached == target[:, None, None]
    first = torch.where(arrived.any(2), arrived.int().argmax(2), most)
    best = first.argmin(1)
    tokens, steps = chains[each, best], first[each, best] + 1

    slipped = torch.rand(rows, most, generator=generator) < slip
    tokens[..., -1] = torch.where(slipped, torch.randint(*any_number, (rows, most), generator=generator), tokens[..., -1])
    is_lost = torch.rand(rows, generator=generator) < lost
    target = torch.where(is_lost, torch.randint(*any_number, (rows,), generator=generator), target)
    tokens[torch.arange(most) >= steps[:, None]] = EOS
    responses = torch.nn.functional.pad(tokens.flatten(1), (0, 1), value=EOS)
    return target, responses, chains.shape[3] * steps + 1
