"""Countdown: reach a target with given numbers and + - x, each number used once at most, every step written down.

Prompt   `target from n n n n :`            four different numbers of 1..16, ascending; a target of 0..29.
Response `a op b = r  a op b = r ... EOS`   at most three steps; a and b are given numbers or earlier results that are not used
                                            yet; reward 1 iff every step is right and the last result is the target.

The field knows the task from TinyZero (github.com/Jiayi-Pan/TinyZero); results stay within 0..29, so that the vocabulary stays
small. A prompt has many solutions (half of those that have any have seven or more); it is graded by how few of the numbers a
solution needs: 2, 3 or 4. All 54,600 prompts are enumerated once, a tenth of them held out by a hash.

Shapes: N rows, L = 7 prompt tokens, T <= 16 response tokens.
"""

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from .graded import GradedPrompts, in_hindsight
from .task import EOS, Benchmark, Demonstrations

TITLE = "Countdown"
LARGEST_GIVEN, LARGEST = 16, 29  # of the given numbers, of targets and results
GIVEN = 4
OPERATIONS = ("+", "-", "x")
STEP_TOKENS, MAX_STEPS = 5, GIVEN - 1
SEPARATOR, FROM, EQUALS, FIRST_OPERATION = 1, 2, 3, 4
FIRST_NUMBER = FIRST_OPERATION + len(OPERATIONS)
VOCABULARY = ("<eos>", ":", "from", "=", *OPERATIONS, *(str(n) for n in range(LARGEST + 1)))
PROMPT_TOKENS = 2 + GIVEN + 1
RESPONSE_TOKENS = STEP_TOKENS * MAX_STEPS + 1

TRAINING_GRADES = (2, 3)  # how many of the numbers are needed
# As in the number walk: two large sets and three small ones. countdown-mix selects the checkpoint; countdown-4 needs more
# numbers than any training prompt.
HELD_OUT = {
    "countdown-mix": Benchmark((2, 3), 500, 5),
    "countdown-far": Benchmark((3,), 500, 5),
    "countdown-2": Benchmark((2,), 100, 10),
    "countdown-3": Benchmark((3,), 100, 10),
    "countdown-4": Benchmark((4,), 100, 10),
}
SELECTION_BENCHMARK, EXPLORATION_BENCHMARK = "countdown-mix", "countdown-far"
# Tuned on seed 0, before any RL, for a pass rate near one third with a wide spread of group accuracies: .35 and .39.
WARM_UPS = {
    "small": {"task": "countdown-1", "steps": 2600},
    "base": {"task": "countdown-1", "steps": 1600, "learning_rate": 2e-3},
}


class Problems(NamedTuple):
    """Every prompt: index = given * 30 + target."""

    given: Tensor  # (1820, 4) numbers, ascending
    graded: GradedPrompts  # by how many of the numbers are needed, 99 where the target is out of reach


@lru_cache(maxsize=1)
def problems() -> Problems:
    given = torch.tensor(list(combinations(range(1, LARGEST_GIVEN + 1), GIVEN)))
    needed = torch.full((len(given), LARGEST + 2), 99)  # the last column is that of -1
    rows = torch.arange(len(given))

    def search(numbers: list[Tensor], used: int) -> None:
        """Note the result of every next step, and search on from it. numbers: those left, (1820,) each, -1 where none is."""
        for i, j in combinations(range(len(numbers)), 2):
            left = [number for k, number in enumerate(numbers) if k not in (i, j)]
            larger, smaller = torch.maximum(numbers[i], numbers[j]), torch.minimum(numbers[i], numbers[j])
            for result in _results(larger, smaller).masked_fill(smaller < 0, -1):
                needed[rows, result] = needed[rows, result].clamp(max=used)
                if left:
                    search([*left, result], used + 1)

    search(list(given.unbind(1)), 2)
    return Problems(given, GradedPrompts(needed[:, :-1].flatten(), TRAINING_GRADES))


def _results(a: Tensor, b: Tensor) -> Tensor:
    """a + b, a - b, a x b: (3, ...); -1 where that is none of the numbers."""
    results = torch.stack([a + b, a - b, a * b])
    return results.masked_fill((results < 0) | (results > LARGEST), -1)


def prompt_tokens(index: Tensor) -> Tensor:
    """(N,) prompt indices -> (N, 7) tokens."""
    target, numbers = index % (LARGEST + 1) + FIRST_NUMBER, problems().given[index // (LARGEST + 1)] + FIRST_NUMBER
    word = torch.ones(len(index), 1, dtype=torch.long)
    return torch.cat([target[:, None], FROM * word, numbers, SEPARATOR * word], 1)


def training_prompts(n: int, generator: torch.Generator) -> Tensor:
    """n training prompts, the numbers that they need uniform over 2 and 3. Returns (n, 7) tokens."""
    return prompt_tokens(problems().graded.draw(n, generator))


@lru_cache(maxsize=1)
def benchmark_prompts() -> dict[str, Tensor]:
    """The five held-out sets, (size, 7) tokens each; no prompt is in two of them or in training."""
    return {name: prompt_tokens(index) for name, index in problems().graded.choose(HELD_OUT).items()}


def reward(prompts: Tensor, responses: Tensor) -> Tensor:
    """1.0 for right steps whose last result is the target, then EOS within T tokens; else 0.0: (N, 7), (N, T) -> (N,)."""
    rows, right_so_far = torch.arange(len(prompts)), torch.ones(len(prompts), dtype=torch.bool)
    unused = torch.zeros(len(prompts), len(VOCABULARY), dtype=torch.long)  # of each number; a word that is none has none
    unused.scatter_(1, prompts[:, 2 : 2 + GIVEN], 1)
    stopped, won = torch.zeros_like(right_so_far), torch.zeros_like(right_so_far)
    for t in range(0, responses.shape[1], STEP_TOKENS):
        stops = (responses[:, t] == EOS) & ~stopped
        if t > 0:  # a target among the given numbers still takes a step
            won |= stops & right_so_far & (responses[:, t - 1] == prompts[:, 0])
        stopped |= stops
        if t + STEP_TOKENS > responses.shape[1]:
            break
        a, operation, b, equals, result = responses[:, t : t + STEP_TOKENS].unbind(1)
        for operand in (a, b):
            right_so_far &= unused[rows, operand] > 0
            unused[rows, operand] -= 1
        unused[rows, result] += 1
        which = (operation - FIRST_OPERATION).clamp(0, len(OPERATIONS) - 1)
        computed = _results(a - FIRST_NUMBER, b - FIRST_NUMBER)[which, rows]
        right_so_far &= (operation == FIRST_OPERATION + which) & (equals == EQUALS)
        right_so_far &= (computed >= 0) & (result == FIRST_NUMBER + computed)
    return won.float()


def demonstrations(
    n: int, generator: torch.Generator, *, chains: int = 4, skew: float = 3.0, lost=0.03, slip=0.01
) -> Demonstrations:
    """n noisy hindsight demonstrations of training prompts, for the warm-up (`in_hindsight`): `chains` random chains of three
    steps leave the given numbers; the target is the first's result after one to three steps (by `skew`, more often few).
    Held-out prompts are dropped before the n are taken.
    """
    p, drawn = problems(), n + n // 4 + 32  # a tenth is held out; a quarter to spare makes too few all but impossible
    given = torch.randint(len(p.given), (drawn,), generator=generator)
    tokens = _random_chains(p.given[given].repeat_interleave(chains, 0), generator).unflatten(0, (drawn, chains))
    steps = (1 + (MAX_STEPS * torch.rand(drawn, generator=generator) ** skew).long()).clamp(max=MAX_STEPS)
    numbers = range(FIRST_NUMBER, len(VOCABULARY))
    target, responses, lengths = in_hindsight(tokens, steps, numbers, generator, lost=lost, slip=slip)
    index = given * (LARGEST + 1) + target - FIRST_NUMBER
    kept = (~p.graded.held_out[index]).nonzero().squeeze(1)[:n]
    return Demonstrations(prompt_tokens(index[kept]), responses[kept], lengths[kept])


def _random_chains(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Three random steps from each row of numbers, (rows, 4) -> (rows, 3, 5) tokens; what is too large or below 0 is a - b."""
    steps, rows = [], torch.arange(len(numbers))
    for _ in range(MAX_STEPS):
        numbers = numbers.gather(1, torch.rand(numbers.shape, generator=generator).argsort(1))
        a, b = numbers[:, 0], numbers[:, 1]
        operation = torch.randint(len(OPERATIONS), a.shape, generator=generator)
        operation = torch.where(_results(a, b)[operation, rows] < 0, 1, operation)
        a, b = torch.where((operation == 1) & (a < b), b, a), torch.where((operation == 1) & (a < b), a, b)
        result = _results(a, b)[operation, rows]
        words = (
            a + FIRST_NUMBER,
            operation + FIRST_OPERATION,
            b + FIRST_NUMBER,
            torch.full_like(a, EQUALS),
            result + FIRST_NUMBER,
        )
        steps.append(torch.stack(words, 1))
        numbers = torch.cat([numbers[:, 2:], result[:, None]], 1)
    return torch.stack(steps, 1)
