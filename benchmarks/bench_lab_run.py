"""What 200 steps of AsymGRPO on the small policy cost, from the start of training on: entropy falls, responses shorten."""

import statistics
import time
from pathlib import Path

import torch
from common import conditions, report

from asymlib import make_spec
from asymlib.lab.optimizer import AdamW
from asymlib.lab.step import train_step
from asymlib.lab.trainer import keep_freed_memory, validate
from asymlib.lab.warmup import load_warm_policy

ROOT = Path(__file__).parents[1]
STEPS, SEEDS = 200, (0, 1, 2)


def seconds_of(seed: int) -> dict[str, float]:
    """CPU seconds of the steps, and of as many validations as a run has in them."""
    spec = make_spec(method="asymgrpo", seed=seed, steps=STEPS)
    policy = load_warm_policy(spec.policy, spec.warmup_seed, ROOT / "results")
    optimizer, tokens = AdamW(policy), 0
    started = time.process_time()
    for step in range(1, STEPS + 1):
        outcome = train_step(spec, policy, optimizer, step)
        tokens += outcome.metrics["tokens"]
    trained = time.process_time()
    for _ in range(STEPS // spec.validation_every):
        validate(policy)
    return {"steps, s": trained - started, "validations, s": time.process_time() - trained, "tokens": tokens}


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    about = conditions(len(SEEDS))
    measured = [seconds_of(seed) for seed in SEEDS]
    row = {"policy": "small", "steps": STEPS} | {name: statistics.median(m[name] for m in measured) for name in measured[0]}
    report("lab_run", f"{STEPS} steps of the lab, median of {len(SEEDS)} seeds", [row], about)
