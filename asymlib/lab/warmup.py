"""The supervised warm-up: a policy of mid pass rate from noisy demonstrations, built once and shared by all methods.

The checkpoint's name is the hash of all that makes it; it lies in `results/warmup/` beside a JSON of how it was made.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save

from ..runs.provenance import collect_provenance
from ..support.files import digest, naming, read_json, write_atomically, write_json
from ..support.messages import shown
from .policy import Policy, token_log_probs
from .sampler import sample
from .tasks import TASKS

SEEDS = 2**32  # as in a spec


@dataclass(frozen=True)
class WarmUp:
    """Settings of one warm-up: our choice, by default the small policy's."""

    policy: str
    seed: int = 0
    steps: int = 1000
    batch: int = 128
    learning_rate: float = 3e-3
    learning_rate_floor: float = 0.05  # share of the peak at the end of the linear decay
    lr_warmup_steps: int = 100
    weight_decay: float = 0.01
    task: str = "number-walk-1"  # the version of its demonstrations: to be changed whenever they change

    @property
    def name(self) -> str:
        settings = json.dumps(asdict(self), sort_keys=True)
        return f"{self.policy}-{self.seed}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def load_warm_policy(policy: str, seed: int, results: Path, task: str = "walk") -> Policy:
    """The warmed-up policy of `warm_checkpoint`."""
    warm = Policy(policy, task=task)
    warm.load_state_dict(load_file(warm_checkpoint(policy, seed, results, task)))
    return warm


def warm_checkpoint(policy: str, seed: int, results: Path, task: str = "walk") -> Path:
    """The checkpoint's file; trained now if `results/warmup/` does not hold it. Safe to call from many processes.

    Raises ValueError for a file that is not the one its JSON names, and for a seed that is none.
    """
    if not 0 <= seed < SEEDS:
        raise ValueError(f"warmup_seed={shown(seed)}: must be from 0 to {SEEDS - 1}")
    recipe = WarmUp(policy, seed, **TASKS[task].WARM_UPS[policy])
    weights = results / "warmup" / f"{recipe.name}.safetensors"
    if not weights.exists():  # what is there needs no lock: it appears whole, and its folder may be read-only
        weights.parent.mkdir(parents=True, exist_ok=True)
        with naming(weights), FileLock(weights.with_name(f".{recipe.name}.lock")):
            if not weights.exists():
                _train_and_write(recipe, task, weights)
    facts = read_json(weights.with_suffix(".json"))
    fault = ""
    if not isinstance(facts, dict) or digest(weights) != facts.get("sha256"):
        fault = f"not the weights that {recipe.name}.json names"
    elif not asdict(recipe).items() <= facts.items():
        fault = f"{recipe.name}.json is that of another warm-up"
    if fault:
        raise ValueError(f"{weights}: {fault}; restore both, or remove both to train anew")
    return weights


def _train_and_write(recipe: WarmUp, task: str, weights: Path) -> None:
    started = time.process_time()
    trained, loss = train(recipe, task)
    content = save(trained.state_dict())
    facts = asdict(recipe) | {"sha256": hashlib.sha256(content).hexdigest(), "final_loss": loss}
    facts |= {"cpu_seconds": time.process_time() - started} | _measure(trained) | {"provenance": collect_provenance()}
    write_json(weights.with_suffix(".json"), facts)
    write_atomically(weights, content)


def train(recipe: WarmUp, task: str = "walk") -> tuple[Policy, float]:
    """Cross-entropy on the demonstrations' response tokens. Returns the policy and its last loss (nats per token)."""
    policy, generator = Policy(recipe.policy, recipe.seed, task), torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(policy.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True)
    for step in range(recipe.steps):
        rise, fall = (step + 1) / recipe.lr_warmup_steps, 1 - step / recipe.steps
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, rise) * max(recipe.learning_rate_floor, fall)
        demos = policy.task.demonstrations(recipe.batch, generator)
        log_probs, _ = token_log_probs(policy, *demos, torch.arange(recipe.batch))
        loss = -log_probs.sum() / demos.lengths.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy, loss.item()


def _measure(policy: Policy, prompts: int = 512, group_size: int = 8) -> dict:
    """Where RL starts: pass rate and entropy on training prompts, and how many groups have k = 0..8 right."""
    task, generator = policy.task, torch.Generator().manual_seed(0)
    rollouts = sample(policy, task.training_prompts(prompts, generator), group_size, generator)
    rewards = task.reward(rollouts.prompts[rollouts.prompt_of_rollout], rollouts.tokens)
    groups = rewards.view(prompts, group_size).sum(1).long().bincount(minlength=group_size + 1).tolist()
    entropy = (rollouts.entropy.sum() / rollouts.lengths.sum()).item()
    return {"pass_rate": rewards.mean().item(), "entropy": entropy, "groups_by_right_rollouts": groups}
