"""Prompts that are all enumerated, graded by difficulty, and split once for all by a hash: a tenth is held out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from .task import Benchmark


class GradedPrompts:
    """Prompts 0 .. len(grade) - 1. Only those of `training_grades` are trained on; a grade that no set names is never used."""

    def __init__(self, grade: Tensor, training_grades: tuple[int, ...]):
        self.grade, self.training_grades = grade, training_grades
        self.held_out = _hash(torch.arange(len(grade))) % 10 == 0

    @cached_property
    def _training_pools(self) -> list[Tensor]:
        return [((self.grade == grade) & ~self.held_out).nonzero().squeeze(1) for grade in self.training_grades]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,) indices of training prompts, their grade uniform over the training grades."""
        which = torch.randint(len(self.training_grades), (n,), generator=generator)
        draw = torch.rand(n, generator=generator, dtype=torch.float64)
        index = torch.empty(n, dtype=torch.long)
        for i, pool in enumerate(self._training_pools):
            rows = which == i
            index[rows] = pool[(draw[rows] * len(pool)).long()]
        return index

    def choose(self, benchmarks: Mapping[str, Benchmark]) -> dict[str, Tensor]:
        """Indices of held-out prompts for each benchmark, (size,); none is chosen twice."""
        generator = torch.Generator().manual_seed(0)
        free, sets = self.held_out.clone(), {}
        for name, benchmark in benchmarks.items():
            parts = []
            for i, grade in enumerate(benchmark.grades):
                share = benchmark.size * (i + 1) // len(benchmark.grades) - benchmark.size * i // len(benchmark.grades)
                pool = (free & (self.grade == grade)).nonzero().squeeze(1)
                chosen = pool[torch.randperm(len(pool), generator=generator)[:share]]
                free[chosen] = False
                parts.append(chosen)
            sets[name] = torch.cat(parts)
        return sets


def _hash(index: Tensor) -> Tensor:
    """A fixed 31-bit mix of an index (xor-shift-multiply), so that the split never depends on a random generator."""
    for multiplier in (0x45D9F3B, 0x45D9F3B):
        index = (((index >> 16) ^ index) * multiplier) & 0x7FFFFFFF
    return (index >> 16) ^ index
