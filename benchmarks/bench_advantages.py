"""What advantages cost at the paper's size, against touching the memory once and against verl's own estimator.

Shapes: N = 128 prompts x 8 rollouts, T = 4,096 response tokens, float32: rewards stand on the last token, advantages on all.
"""

import statistics
import uuid

import numpy as np
import torch
from common import conditions, interleaved, median_ratio, report
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from asymlib import METHODS, group_advantages
from asymlib.verl.estimator import estimate

PROMPTS, GROUP_SIZE, TOKENS, REPEATS = 128, 8, 4096, 31


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    n = PROMPTS * GROUP_SIZE
    lengths = torch.randint(1, TOKENS + 1, (n,), generator=generator)
    mask = torch.arange(TOKENS) < lengths[:, None]
    float_mask, verl_mask = mask.float(), mask.long()  # verl's are int64
    rewards_NT = torch.zeros(n, TOKENS)
    rewards_NT[torch.arange(n), lengths - 1] = torch.randint(2, (n,), generator=generator).float()
    groups = np.repeat(np.array([str(uuid.uuid4()) for _ in range(PROMPTS)], dtype=object), GROUP_SIZE)
    rewards_N, out, method = rewards_NT.sum(-1), torch.empty(n, TOKENS), METHODS["grpo"]
    config = OmegaConf.create({"asymlib": {"method": method.name}})

    def memory() -> None:
        rewards_NT.sum(-1)
        out.fill_(1.0)

    parts = {
        "floor: rewards read, advantages written": memory,
        "group_advantages alone": lambda: group_advantages(rewards_N, groups, method),
        "rewards to advantages, in place": lambda: torch.mul(
            group_advantages(rewards_NT.sum(-1), groups, method)[:, None], float_mask, out=out
        ),
        "verl's mask times a number, new memory": lambda: rewards_N[:, None] * verl_mask,
        "asymlib's estimator in verl": lambda: estimate(rewards_NT, verl_mask, groups, config),
        "verl's grpo": lambda: compute_grpo_outcome_advantage(rewards_NT, verl_mask, groups),
    }
    about = conditions(REPEATS)
    seconds = interleaved(parts, REPEATS)
    floor, verl = seconds["floor: rewards read, advantages written"], seconds["verl's grpo"]
    rows = [
        {
            "part": name,
            "milliseconds": 1e3 * statistics.median(s),
            "times the floor": median_ratio(s, floor),
            "verl's grpo takes so many times as long": median_ratio(verl, s),
        }
        for name, s in seconds.items()
    ]
    report("advantages", f"{PROMPTS} prompts x {GROUP_SIZE} rollouts x {TOKENS} tokens", rows, about)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
