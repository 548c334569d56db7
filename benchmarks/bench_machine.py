"""Training steps an hour of the whole machine: a lab run on every core against TRL's GRPOTrainer in its best setting.

TRL is measured as one process on all cores and as a process on each; it rolls out and trains on its own rollouts, the lab on
its own. Start-up, validation and evaluation are left out on both sides. Processes of a setting start their steps together.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
STEPS, WARM_UP, REPEATS = 14, 2, 3
SETTINGS = {
    "lab, a process a core": ("lab", CORES, 1),
    "TRL, a process a core": ("TRL", CORES, 1),
    "TRL, all cores": ("TRL", 1, CORES),
}


def lab_steps(name: str) -> list[float]:
    """When each step ended, and first when the first one began."""
    import torch

    from asymlib import make_spec
    from asymlib.lab.optimizer import AdamW
    from asymlib.lab.step import train_step
    from asymlib.lab.trainer import keep_freed_memory
    from asymlib.lab.warmup import load_warm_policy

    torch.set_num_threads(1)
    keep_freed_memory()
    spec, policy = make_spec(method="grpo", policy=name), load_warm_policy(name, 0, Path(__file__).parents[1] / "results")
    optimizer, ends = AdamW(policy), [_together()]
    for step in range(1, STEPS + 1):
        train_step(spec, policy, optimizer, step)
        ends.append(time.perf_counter())
    return ends


def trl_steps(name: str, threads: int) -> list[float]:
    import torch
    from bench_trl import Comparison

    from asymlib.lab.tasks import walk as task
    from asymlib.lab.trainer import keep_freed_memory

    class Alone(Comparison):
        """TRL on its own rollouts."""

        def roll_out(self, texts, trainer):
            group = self.spec.group_size
            prompts = torch.stack([self.prompts[text] for text in texts[::group]]).repeat_interleave(group, 0)
            completions, _ = trainer._generate_single_turn(prompts.tolist(), None, {}, group)
            tokens = torch.full((len(prompts), task.RESPONSE_TOKENS), task.EOS)
            for row, completion in zip(tokens, completions, strict=True):
                row[: len(completion)] = torch.tensor(completion)
            self.rewards = task.reward(prompts, tokens)
            return {"prompt_ids": prompts.tolist(), "completion_ids": completions, "logprobs": None}

        def ended(self):
            ends.append(time.perf_counter() if ends else _together())

    ends: list[float] = []
    torch.set_num_threads(threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        Alone(name, STEPS).run(folder)
    return ends


def _together() -> float:
    """Wait for the line that says that all processes are ready."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.perf_counter()


def steps_per_hour(who: str, processes: int, threads: int, name: str) -> float:
    command = [sys.executable, __file__, who, name, str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    children = [subprocess.Popen(command, **pipes) for _ in range(processes)]
    for child in children:
        while child.stdout.readline() != "ready\n":
            if child.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with status {child.returncode}")
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    ends = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    return sum(3600 * (STEPS - WARM_UP) / (e[-1] - e[WARM_UP]) for e in ends)


def main() -> None:
    from common import conditions, median_ratio, report

    about, rows = conditions(REPEATS, "steps an hour by wall time"), []
    for name in ("small", "base"):
        measured = {setting: [] for setting in SETTINGS}
        for _ in range(REPEATS):
            for setting, (who, processes, threads) in SETTINGS.items():
                measured[setting].append(steps_per_hour(who, processes, threads, name))
        lab, *others = SETTINGS
        best = max(others, key=lambda setting: statistics.median(measured[setting]))
        for setting, values in measured.items():
            ratio = median_ratio(measured[lab], values)
            rows.append({"policy": name, "setting": setting, "steps an hour": statistics.median(values), "lab / it": ratio})
        print(f"{name}: TRL's best setting is {best!r}")
    report("machine", f"Training steps an hour on {CORES} cores", rows, about)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        warnings.simplefilter("ignore")
        who, name, threads = sys.argv[1:]
        print(json.dumps(lab_steps(name) if who == "lab" else trl_steps(name, int(threads))))
