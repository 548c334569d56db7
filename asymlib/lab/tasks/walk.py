"""The number walk: reach a target number by operations from a menu, writing every intermediate number down.

Prompt   `start target op op op :`   three operations of the pool, numbers modulo 30.
Response `op n op n ... EOS`         at most six moves; reward 1 iff every operation is on the menu, every number is right and
                                     the last one is the target.

Many chains solve one prompt, so exploration matters; the difficulty is the shortest chain's length (breadth-first distance).
There are 75,600 prompts; all are enumerated once, a tenth of them held out by a hash.

Shapes: N rows, L = 6 prompt tokens, T <= 13 response tokens, M = 30 numbers.
"""

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from .graded import GradedPrompts, in_hindsight
from .task import EOS, Benchmark, Demonstrations

TITLE = "number walk"
MODULUS = 30
MENU_SIZE = 3
MAX_MOVES = 6
# x -> (a x + b) mod 30. Operation tokens are the forks of a response, number tokens nearly deterministic.
OPERATIONS = ((1, 1), (1, -1), (2, 0), (1, 7), (1, -7), (3, 0), (1, 10), (1, -4), (3, 1))
OPERATION_NAMES = tuple((f"{a}x" if a != 1 else "x") + (f"{b:+d}" if b else "") for a, b in OPERATIONS)

SEPARATOR = 1
FIRST_OPERATION = 2
FIRST_NUMBER = FIRST_OPERATION + len(OPERATIONS)
VOCABULARY = ("<eos>", ":", *OPERATION_NAMES, *(str(n) for n in range(MODULUS)))
PROMPT_TOKENS = 2 + MENU_SIZE + 1
RESPONSE_TOKENS = 2 * MAX_MOVES + 1

TRAIN_DISTANCES = (1, 2, 3, 4)
# Two large sets and three small ones stand where the paper has MATH-500 and OlympiadBench, AMC 2023, AIME 2024 and 2025.
# walk-mix selects the checkpoint, as MATH-500 does; walk-5 is farther than any training prompt.
HELD_OUT = {
    "walk-mix": Benchmark((1, 2, 3, 4), 500, 5),
    "walk-far": Benchmark((3, 4), 500, 5),
    "walk-3": Benchmark((3,), 100, 10),
    "walk-4": Benchmark((4,), 100, 10),
    "walk-5": Benchmark((5,), 100, 10),
}
SELECTION_BENCHMARK, EXPLORATION_BENCHMARK = "walk-mix", "walk-far"

# Tuned, on seed 0 and before any RL, for a pass rate near one third with a wide spread of group accuracies.
WARM_UPS = {"small": {}, "base": {"steps": 1300, "learning_rate": 2e-3}}


class Problems(NamedTuple):
    """Every prompt: index = (menu * 30 + start) * 30 + target."""

    menus: Tensor  # (84, 3) operations, ascending
    next_number: Tensor  # (9, 30): number after an operation
    graded: GradedPrompts  # by the shortest chain's moves: 0 where target == start, 99 where it is out of reach


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
    return Problems(menus, next_number, GradedPrompts(distance.flatten(), TRAIN_DISTANCES))


def prompt_tokens(index: Tensor) -> Tensor:
    """(N,) prompt indices -> (N, 6) tokens."""
    menu, start, target = index // MODULUS**2, index // MODULUS % MODULUS, index % MODULUS
    numbers = torch.stack([start, target], 1) + FIRST_NUMBER
    return torch.cat([numbers, problems().menus[menu] + FIRST_OPERATION, torch.full((len(index), 1), SEPARATOR)], 1)


def training_prompts(n: int, generator: torch.Generator) -> Tensor:
    """n training prompts, their distance uniform over 1..4. Returns (n, 6) tokens."""
    return prompt_tokens(problems().graded.draw(n, generator))


@lru_cache(maxsize=1)
def benchmark_prompts() -> dict[str, Tensor]:
    """The five held-out sets, (size, 6) tokens each; no prompt is in two of them or in training."""
    return {name: prompt_tokens(index) for name, index in problems().graded.choose(HELD_OUT).items()}


def reward(prompts: Tensor, responses: Tensor) -> Tensor:
    """1.0 for a right walk that reaches the target and stops within T tokens, else 0.0: (N, 6), (N, T) -> (N,)."""
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


def demonstrations(
    n: int, generator: torch.Generator, *, max_moves: int = 5, walks: int = 4, skew: float = 1.5, lost=0.03, slip=0.01
) -> Demonstrations:
    """n noisy hindsight demonstrations of training prompts, for the warm-up (`in_hindsight`): `walks` random walks leave the
    start; the target is where the first stands after some moves (by `skew`, more often few). Held-out prompts are dropped
    before the n are taken.
    """
    p, drawn = problems(), n + n // 4 + 32  # a tenth is held out; a quarter to spare makes too few all but impossible
    menu = torch.randint(len(p.menus), (drawn,), generator=generator)
    start = torch.randint(MODULUS, (drawn,), generator=generator)
    moves = (1 + (max_moves * torch.rand(drawn, generator=generator) ** skew).long()).clamp(max=max_moves)
    choice = torch.randint(MENU_SIZE, (drawn, walks, max_moves), generator=generator)
    operations = p.menus[menu][:, None, :].expand(-1, walks, -1).gather(2, choice)
    numbers = [start[:, None].expand(-1, walks)]
    for t in range(max_moves):
        numbers.append(p.next_number[operations[:, :, t], numbers[-1]])
    chains = torch.stack([operations + FIRST_OPERATION, torch.stack(numbers[1:], 2) + FIRST_NUMBER], 3)
    tokens = range(FIRST_NUMBER, FIRST_NUMBER + MODULUS)
    target, responses, lengths = in_hindsight(chains, moves, tokens, generator, lost=lost, slip=slip)
    index = (menu * MODULUS + start) * MODULUS + target - FIRST_NUMBER
    kept = (~p.graded.held_out[index]).nonzero().squeeze(1)[:n]
    responses = torch.nn.functional.pad(responses[kept], (0, RESPONSE_TOKENS - responses.shape[1]), value=EOS)
    return Demonstrations(prompt_tokens(index[kept]), responses, lengths[kept])
