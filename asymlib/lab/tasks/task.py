"""What a task of the lab is: a module with the names of `Task`. The rest of the lab knows a task by nothing else."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

EOS = 0  # ends a response, and pads it: with no PAD token there is none that a policy could emit unpunished


class Benchmark(NamedTuple):
    """A held-out set: the grades of its prompts, in equal shares, how many prompts, and k of its Avg@k."""

    grades: tuple[int, ...]
    size: int
    samples: int


class Demonstrations(NamedTuple):
    prompts: Tensor  # (n, L)
    responses: Tensor  # (n, T)
    lengths: Tensor  # (n,)


class Task(Protocol):
    """Shapes: n prompts of L = PROMPT_TOKENS tokens, N responses of at most T = RESPONSE_TOKENS, EOS included."""

    TITLE: str  # as a reader knows it: 'number walk'
    VOCABULARY: tuple[str, ...]  # words without blanks; VOCABULARY[EOS] is '<eos>'
    PROMPT_TOKENS: int
    RESPONSE_TOKENS: int
    HELD_OUT: dict[str, Benchmark]  # names begin with the task's name and a hyphen
    SELECTION_BENCHMARK: str  # selects the checkpoint, as MATH-500 does in the paper
    EXPLORATION_BENCHMARK: str  # of pass@16 of the last policy
    WARM_UPS: dict[str, dict]  # by policy, what differs from `WarmUp`'s defaults; 'task' is the version of the demonstrations

    def training_prompts(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, L) prompts, none of them held out."""

    def benchmark_prompts(self) -> dict[str, Tensor]:
        """The held-out sets by name, (size, L) each; no prompt is in two of them or in training."""

    def demonstrations(self, n: int, generator: torch.Generator) -> Demonstrations:
        """n noisy demonstrations of training prompts, for the warm-up."""

    def reward(self, prompts: Tensor, responses: Tensor) -> Tensor:
        """(N,) of 0.0 or 1.0. prompts: (N, L); responses: (N, T), EOS after the end. Without EOS a response is wrong."""


def to_text(task: Task, tokens) -> str:
    """Token ids as a person reads them: '4 9 x+1 2x 3x :'."""
    return " ".join(task.VOCABULARY[int(token)] for token in tokens)
