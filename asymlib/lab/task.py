"""The number walk: reach a target number by operations from a menu, writing every intermediate number down.

Prompt   `start target op op op :`   three operations of the pool, numbers modulo 30.
Response `op n op n ... EOS`         at most six moves; reward 1 iff every operation is on the menu, every number is right and
                                     the last one is the target.

Many chains solve one prompt, so exploration matters; the difficulty is the shortest chain's length (breadth-first distance).
There are 75,600 prompts; all are enumerated once, a tenth of them held out by a hash.

Shapes: N rows, L = 6 prompt tokens, T <= 13 response tokens, M = 30 numbers.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

MODULUS = 30
MENU_SIZE = 3
MAX_MOVES = 6
# x -> (a x + b) mod 30. Operation tokens are the forks of a response, number tokens nearly deterministic.
OPERATIONS = ((1, 1), (1, -1), (2, 0), (1, 7), (1, -7), (3, 0), (1, 10), (1, -4), (3, 1))
OPERATION_NAMES = tuple((f"{a}x" if a != 1 else "x") + (f"{b:+d}" if b else "") for a, b in OPERATIONS)

# Rows are padded with EOS and masked by length: with no PAD token there is none that a policy could emit unpunished.
EOS, SEPARATOR = 0, 1
FIRST_OPERATION = 2
FIRST_NUMBER = FIRST_OPERATION + len(OPERATIONS)
VOCABULARY = ("<eos>", ":", *OPERATION_NAMES, *(str(n) for n in range(MODULUS)))
PROMPT_TOKENS = 2 + MENU_SIZE + 1
RESPONSE_TOKENS = 2 * MAX_MOVES + 1

TRAIN_DISTANCES = (1, 2, 3, 4)


class Benchmark(NamedTuple):
    """A held-out set: the distances of its prompts, how many prompts, and k of its Avg@k."""

    distances: tuple[int, ...]
    size: int
    samples: int


# Two large sets and three small ones stand where the paper has MATH-500 and OlympiadBench, AMC 2023, AIME 2024 and 2025.
# walk-mix selects the checkpoint, as MATH-500 does; walk-5 is farther than any training prompt.
BENCHMARKS = {
    "walk-mix": Benchmark((1, 2, 3, 4), 500, 5),
    "walk-far": Benchmark((3, 4), 500, 5),
    "walk-3": Benchmark((3,), 100, 10),
    "walk-4": Benchmark((4,), 100, 10),
    "walk-5": Benchmark((5,), 100, 10),
}
SELECTION_BENCHMARK = "walk-mix"


class Problems(NamedTuple):
    """Every prompt: index = (menu * 30 + start) * 30 + target."""

    menus: Tensor  # (84, 3) operations, ascending
    next_number: Tensor  # (9, 30): number after an operation
    distance: Tensor  # (75600,) shortest chain, 0 where target == start, 99 where it is out of reach
    held_out: Tensor  # (75600,) bool


@lru_cache(maxsize=1)
def problems() -> Problems:
    numbers = torch.arange(MODULUS)
    next_number = torch.stack([(a * numbers + b) % MODULUS for a, b in OPERATIONS])
    menus = torch.tensor(list(combinations(range(len(OPERATIONS)), MENU_SIZE)))
    moves = torch.nn.functional.one_hot(next_number[menus], MODULUS).sum(1).float()  # (84, 30 from, 30 to)
    reached = torch.eye(MODULUS).expand(len(menus), -1, -1)
    distance = torch.full((len(menus), MODULUS, MODULUS), 99)
    distance[reached > 0] = 0
    for d in range(1, MAX_MOVES + 1):
        reached = ((reached @ moves) > 0).float()
        distance[(reached > 0) & (distance == 99)] = d
    index = torch.arange(distance.numel())
    return Problems(menus, next_number, distance.flatten(), _hash(index) % 10 == 0)


def _hash(index: Tensor) -> Tensor:
    """A fixed 31-bit mix of an index (xor-shift-multiply), so that the split never depends on a random generator."""
    for multiplier in (0x45D9F3B, 0x45D9F3B):
        index = (((index >> 16) ^ index) * multiplier) & 0x7FFFFFFF
    return (index >> 16) ^ index


def prompt_tokens(index: Tensor) -> Tensor:
    """(N,) prompt indices -> (N, 6) tokens."""
    menu, start, target = _split(index)
    return torch.cat(
        [
            (start + FIRST_NUMBER)[:, None],
            (target + FIRST_NUMBER)[:, None],
            problems().menus[menu] + FIRST_OPERATION,
            torch.full((len(index), 1), SEPARATOR),
        ],
        dim=1,
    )


def _split(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return index // MODULUS**2, index // MODULUS % MODULUS, index % MODULUS


@lru_cache(maxsize=8)
def _training_pool(distance: int) -> Tensor:
    p = problems()
    return ((p.distance == distance) & ~p.held_out).nonzero().squeeze(1)


def training_prompts(n: int, generator: torch.Generator) -> Tensor:
    """n training prompts, their distance uniform over 1..4. Returns (n, 6) tokens."""
    which = torch.randint(len(TRAIN_DISTANCES), (n,), generator=generator)
    draw = torch.rand(n, generator=generator, dtype=torch.float64)
    index = torch.empty(n, dtype=torch.long)
    for i, distance in enumerate(TRAIN_DISTANCES):
        pool, rows = _training_pool(distance), which == i
        index[rows] = pool[(draw[rows] * len(pool)).long()]
    return prompt_tokens(index)


@lru_cache(maxsize=1)
def benchmark_prompts() -> dict[str, Tensor]:
    """The five held-out sets, (size, 6) tokens each; no prompt is in two of them or in training."""
    p, generator = problems(), torch.Generator().manual_seed(0)
    free, sets = p.held_out.clone(), {}
    for name, benchmark in BENCHMARKS.items():
        parts = []
        for i, distance in enumerate(benchmark.distances):
            share = benchmark.size * (i + 1) // len(benchmark.distances) - benchmark.size * i // len(benchmark.distances)
            pool = (free & (p.distance == distance)).nonzero().squeeze(1)
            chosen = pool[torch.randperm(len(pool), generator=generator)[:share]]
            free[chosen] = False
            parts.append(chosen)
        sets[name] = prompt_tokens(torch.cat(parts))
    return sets


def reward(prompts: Tensor, responses: Tensor) -> Tensor:
    """1.0 for a right walk that reaches the target and stops, else 0.0.

    prompts: (N, 6); responses: (N, T), EOS after the end. Returns (N,) float. A response with no EOS in T tokens is wrong.
    """
    next_number = problems().next_number
    number, target = prompts[:, 0] - FIRST_NUMBER, prompts[:, 1] - FIRST_NUMBER
    menu = prompts[:, 2 : 2 + MENU_SIZE]
    right_so_far = torch.ones(len(prompts), dtype=torch.bool)
    stopped, won = torch.zeros_like(right_so_far), torch.zeros_like(right_so_far)
    for t in range(0, responses.shape[1], 2):
        operation = responses[:, t]
        stops = (operation == EOS) & ~stopped
        if t > 0:  # a target equal to the start still takes a move
            won |= stops & right_so_far & (number == target)
        stopped |= stops
        if t + 1 == responses.shape[1]:
            break
        on_menu = (menu == operation[:, None]).any(1)
        number = next_number[(operation - FIRST_OPERATION).clamp(0, len(OPERATIONS) - 1), number]
        right_so_far &= on_menu & (responses[:, t + 1] - FIRST_NUMBER == number)
    return won.float()


class Demonstrations(NamedTuple):
    prompts: Tensor  # (n, 6)
    responses: Tensor  # (n, 13)
    lengths: Tensor  # (n,)


def demonstrations(
    n: int,
    generator: torch.Generator,
    *,
    max_moves: int = 5,
    walks: int = 4,
    skew: float = 1.5,
    lost: float = 0.03,
    slip: float = 0.01,
) -> Demonstrations:
    """n noisy hindsight demonstrations of training prompts, for the warm-up.

    `walks` random walks leave the start; the target is where the first stands after some moves (by `skew`, more often few);
    the demonstration is the walk that gets there soonest. A share `lost` gets an unrelated target, and each written number
    is wrong with probability `slip`. Prompts that are held out are dropped before the n are taken.
    """
    p, drawn = problems(), n + n // 4 + 32  # a tenth is held out; a quarter to spare makes too few all but impossible
    menu = torch.randint(len(p.menus), (drawn,), generator=generator)
    start = torch.randint(MODULUS, (drawn,), generator=generator)
    moves = (1 + (max_moves * torch.rand(drawn, generator=generator) ** skew).long()).clamp(max=max_moves)
    choice = torch.randint(MENU_SIZE, (drawn, walks, max_moves), generator=generator)
    operations = p.menus[menu][:, None, :].expand(-1, walks, -1).gather(2, choice)
    number, numbers = start[:, None].expand(-1, walks), []
    for t in range(max_moves):
        number = p.next_number[operations[:, :, t], number]
        numbers.append(number)
    numbers = torch.stack(numbers, 2)

    rows = torch.arange(drawn)
    target = numbers[rows, 0, moves - 1]
    arrived = numbers == target[:, None, None]
    first = torch.where(arrived.any(2), arrived.int().argmax(2), max_moves)
    best = first.argmin(1)
    moves = first[rows, best] + 1
    operations, numbers = operations[rows, best], numbers[rows, best]

    slipped = torch.rand(numbers.shape, generator=generator) < slip
    numbers = torch.where(slipped, torch.randint(MODULUS, numbers.shape, generator=generator), numbers)
    is_lost = torch.rand(drawn, generator=generator) < lost
    target = torch.where(is_lost, torch.randint(MODULUS, (drawn,), generator=generator), target)

    index = (menu * MODULUS + start) * MODULUS + target
    kept = (~p.held_out[index]).nonzero().squeeze(1)[:n]
    responses = torch.full((drawn, RESPONSE_TOKENS), EOS)
    walked = torch.arange(max_moves) < moves[:, None]
    responses[:, 0 : 2 * max_moves : 2] = torch.where(walked, operations + FIRST_OPERATION, EOS)
    responses[:, 1 : 2 * max_moves : 2] = torch.where(walked, numbers + FIRST_NUMBER, EOS)
    return Demonstrations(prompt_tokens(index[kept]), responses[kept], 2 * moves[kept] + 1)


def to_text(tokens) -> str:
    """Token ids as a person reads them: '4 9 x+1 2x 3x :'."""
    return " ".join(VOCABULARY[int(t)] for t in tokens)
