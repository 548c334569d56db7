"""What advantages cost at the paper's size, against touching the memory once.

Shapes: N = 128 prompts x 8 rollouts, T = 4,096 response tokens, float32: rewards stand on the last token, advantages on all.
"""

import statistics
import uuid
from collections import defaultdict

import numpy as np
import torch
from common import conditions, interleaved, median_ratio, report

from asymlib import METHODS, group_advantages

PROMPTS, GROUP_SIZE, TOKENS, REPEATS = 128, 8, 4096, 31


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    n = PROMPTS * GROUP_SIZE
    lengths = torch.randint(1, TOKENS + 1, (n,), generator=generator)
    mask = torch.arange(TOKENS) < lengths[:, None]
    rewards_NT = torch.zeros(n, TOKENS)
    rewards_NT[torch.arange(n), lengths - 1] = torch.randint(2, (n,), generator=generator).float()
    groups = np.repeat(np.array([str(uuid.uuid4()) for _ in range(PROMPTS)], dtype=object), GROUP_SIZE)
    rewards_N, out, method = rewards_NT.sum(-1), torch.empty(n, TOKENS), METHODS["asymgrpo"]

    def whole() -> torch.Tensor:
        return torch.mul(group_advantages(rewards_NT.sum(-1), groups, method)[:, None], mask, out=out)

    def loop() -> torch.Tensor:
        """GRPO with a Python loop over rollouts and a tensor per group, as trainers commonly write it."""
        scores, rows = rewards_NT.sum(-1), defaultdict(list)
        for i in range(n):
            rows[groups[i]].append(scores[i])
        mean = {group: torch.stack(values).mean() for group, values in rows.items()}
        std = {group: torch.stack(values).std() for group, values in rows.items()}
        for i in range(n):
            scores[i] = (scores[i] - mean[groups[i]]) / (std[groups[i]] + 1e-6)
        return torch.mul(scores[:, None], mask, out=out)

    def memory() -> None:
        rewards_NT.sum(-1)
        out.fill_(1.0)

    parts = {
        "group_advantages and broadcast": whole,
        "group_advantages alone": lambda: group_advantages(rewards_N, groups, method),
        "a loop over rollouts and broadcast": loop,
        "rewards read, advantages written": memory,
    }
    about = conditions(REPEATS)
    seconds = interleaved(parts, REPEATS)
    floor = seconds["rewards read, advantages written"]
    rows = [
        {"part": name, "milliseconds": 1e3 * statistics.median(s), "times the memory floor": median_ratio(s, floor)}
        for name, s in seconds.items()
    ]
    report("advantages", f"{PROMPTS} prompts x {GROUP_SIZE} rollouts x {TOKENS} tokens", rows, about)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
