"""A lab small enough for tests. As a script: run a spec in a process of its own and, if asked, die by SIGKILL at a step."""

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from asymlib.execution.running import run_experiment
from asymlib.lab import trainer
from asymlib.lab.policy import Policy
from asymlib.lab.tasks import TASKS
from asymlib.lab.tasks import walk as task
from asymlib.lab.warmup import WarmUp
from asymlib.runs.records import run_folder
from asymlib.runs.spec import ExperimentSpec, make_spec
from asymlib.support.files import digest, write_json

RANDOM, BROKEN, SILENT = 0, 1, 2  # warm-up seeds of the checkpoints
SNAPSHOT_EVERY = 8
_benchmark_prompts = task.benchmark_prompts


def tiny_spec(**fields) -> ExperimentSpec:
    return make_spec(**({"method": "grpo", "steps": 2, "prompts_per_step": 4, "prompts_per_minibatch": 2} | fields))


def write_checkpoints(results: Path) -> None:
    """Stand-ins for the warm-up: a random policy (of each task), one whose weights are NaN, one that says only EOS."""
    policies = {seed: Policy("small", seed) for seed in (RANDOM, BROKEN, SILENT)}
    with torch.no_grad():
        policies[BROKEN].embedding.weight.fill_(torch.nan)
        weight = policies[SILENT].embedding.weight  # every state looks the same, and the same as EOS's row, which is longest
        weight[:] = torch.tensor([1.0, -1.0]).repeat(weight.shape[1] // 2)
        weight[task.EOS] *= 10
    (results / "warmup").mkdir(parents=True, exist_ok=True)
    made = {WarmUp("small", seed): policy for seed, policy in policies.items()}
    made[WarmUp("small", RANDOM, **TASKS["countdown"].WARM_UPS["small"])] = Policy("small", RANDOM, "countdown")
    for recipe, policy in made.items():
        weights = results / "warmup" / f"{recipe.name}.safetensors"
        save_file(policy.state_dict(), weights)
        write_json(weights.with_suffix(".json"), asdict(recipe) | {"sha256": digest(weights)})


def warm_up_facts(results: Path, seed: int = RANDOM) -> dict[str, str]:
    """What a record says of the weights that it started from."""
    weights = results / "warmup" / f"{WarmUp('small', seed).name}.safetensors"
    return {"name": weights.stem, "sha256": digest(weights)}


def easy_reward(prompts, responses):
    """1 if the first token's number is odd: half of a random policy's responses."""
    return (responses[:, 0] % 2).float()


def shrink(setattr=setattr) -> None:
    setattr(task, "benchmark_prompts", lambda: {name: prompts[:5] for name, prompts in _benchmark_prompts().items()})
    setattr(task, "reward", easy_reward)
    setattr(trainer, "SNAPSHOT_EVERY", SNAPSHOT_EVERY)


def _run_and_die(spec: ExperimentSpec, results: Path, last_step: int) -> None:
    def on_step(metrics: dict) -> None:
        if metrics["step"] == last_step:
            with (run_folder(spec, results) / "metrics.jsonl").open("a") as file:
                file.write('{"step": ')  # the next line was being written when the process died
            os.kill(os.getpid(), signal.SIGKILL)

    run_experiment(spec, results, on_step)


if __name__ == "__main__":
    torch.set_num_threads(1)
    shrink()
    _run_and_die(ExperimentSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
