"""Training one spec in the lab: step by step, with validation, the best checkpoint, snapshots and the final evaluation."""

import ctypes
import io
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import pandas as pd
import torch
from torch import Tensor

from ..runs.spec import ExperimentSpec
from ..runs.writer import RunWriter
from ..support.files import digest
from .optimizer import AdamW
from .policy import Policy
from .sampler import sample
from .schedule import Past, scheduled
from .step import train_step
from .warmup import load_warm_policy, warm_checkpoint

EVALUATION_TEMPERATURE = 0.4
EXPLORATION_SAMPLES = 16  # pass@16 of the last policy, on the task's EXPLORATION_BENCHMARK
SNAPSHOT_EVERY = 50  # steps between two
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class Collapse(Exception):
    """The policy broke down: NaN or empty responses. The message says which and when."""


@dataclass
class State:
    """All that a run carries from step to step. Randomness is drawn from (seed, step), so none needs keeping."""

    policy: Policy
    optimizer: AdamW
    step: int = 0
    best_accuracy: float = -1.0
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    covariance: list[tuple[int, float, float]] = field(default_factory=list)  # step, group accuracy, covariance
    first_entropy: float = 0.0
    past: Past = field(default_factory=Past)

    def keep_best(self, accuracies: dict[str, float], step: int) -> None:
        """Keep the weights if they are the best on the selection set so far."""
        accuracy = accuracies[f"val_acc/{self.policy.task.SELECTION_BENCHMARK}"]
        if accuracy > self.best_accuracy:
            self.best_accuracy, self.best_step = accuracy, step
            self.best_weights = {k: v.clone() for k, v in self.policy.state_dict().items()}

    def to_bytes(self) -> bytes:
        tensors = {"policy": self.policy.state_dict(), "optimizer": self.optimizer.moments}
        torch.save(vars(self) | tensors | {"past": tuple(self.past)}, content := io.BytesIO())
        return content.getvalue()

    def load(self, content: bytes) -> None:
        saved = torch.load(io.BytesIO(content), weights_only=True)
        self.policy.load_state_dict(saved.pop("policy"))
        for name, moments in saved.pop("optimizer").items():
            for part, values in moments.items():
                self.optimizer.moments[name][part].copy_(values)
        vars(self).update(saved | {"past": Past(*saved["past"])})


def train(spec: ExperimentSpec, writer: RunWriter, results: Path) -> None:
    """Run `spec` to its end into `writer`, from its last snapshot if it was cut off before."""
    torch.set_num_threads(1)  # processes side by side beat threads at these sizes
    keep_freed_memory()
    state, collapse = _resume(spec, writer, results), None
    try:
        for metrics in steps(spec, state):
            writer.log(metrics)
            if state.step % SNAPSHOT_EVERY == 0:
                writer.keep(state.to_bytes())
    except Collapse as error:
        collapse = str(error)
    covariance = pd.DataFrame(state.covariance, columns=["step", "accuracy", "covariance"])
    writer.finish(evaluation=list(_evaluations(state, spec.exploration_temperatures)), covariance=covariance, collapse=collapse)


def _resume(spec: ExperimentSpec, writer: RunWriter, results: Path) -> State:
    """The state of the run's last snapshot, or a new one."""
    checkpoint = warm_checkpoint(spec.policy, spec.warmup_seed, results, spec.task)
    writer.note(warmup={"name": checkpoint.stem, "sha256": digest(checkpoint)})
    state, saved = new_state(spec, results), writer.resume()
    if saved is not None:
        try:
            state.load(saved)
            if state.step != writer.steps:
                raise ValueError(f"the state of step {state.step} after {writer.steps} lines")
        except (AttributeError, EOFError, KeyError, RuntimeError, TypeError, UnpicklingError, ValueError):
            state = new_state(spec, results)
            writer.start_anew("of another version")
    return state


def new_state(spec: ExperimentSpec, results: Path) -> State:
    """The warmed-up policy and a fresh optimizer, at step 0."""
    policy = load_warm_policy(spec.policy, spec.warmup_seed, results, spec.task)
    return State(policy, AdamW(policy))


def keep_freed_memory() -> None:
    """Tell glibc to keep freed tensors' pages: returning and faulting them in again is 5% of a step. Elsewhere nothing."""
    if platform.libc_ver()[0] == "glibc":
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, 1 << 30)


def steps(spec: ExperimentSpec, state: State) -> Iterator[dict[str, float]]:
    """Train `state` on to step `spec.steps`; one step's metrics at a time."""
    while state.step < spec.steps:
        step = state.step + 1
        method = scheduled(spec.resolved_method, spec.beta_schedule, state.past)
        outcome = train_step(spec, state.policy, state.optimizer, step, method)
        if outcome.collapse:
            raise Collapse(outcome.collapse)
        accuracies = {}
        if step % spec.validation_every == 0 or step == spec.steps:
            accuracies = validate(state.policy)
            state.keep_best(accuracies, step)
        state.covariance += outcome.covariance
        state.step, facts = step, outcome.metrics
        state.first_entropy = state.first_entropy or facts["entropy"]
        state.past = state.past.after(step / spec.steps, facts["reward"], facts["entropy"] / state.first_entropy)
        betas = {"beta_pos": method.beta_pos, "beta_neg": method.beta_neg} if spec.beta_schedule else {}
        yield {"step": step} | facts | betas | accuracies


def validate(policy: Policy) -> dict[str, float]:
    """Greedy accuracy on the five held-out sets, and their mean."""
    task, sets = policy.task, policy.task.benchmark_prompts()
    prompts = torch.cat(list(sets.values()))
    right = task.reward(prompts, sample(policy, prompts, 1, torch.Generator(), temperature=0.0).tokens)
    parts = right.split([len(prompts) for prompts in sets.values()])
    accuracies = {f"val_acc/{name}": part.mean().item() for name, part in zip(sets, parts, strict=True)}
    return {"val_acc": sum(accuracies.values()) / len(accuracies)} | accuracies


def _evaluations(state: State, temperatures: tuple[float, ...]) -> Iterator[dict]:
    """pass@16 of the last policy at each of the temperatures; Avg@k of the best checkpoint on every set at temperature 0.4."""
    task = state.policy.task
    if torch.isfinite(state.policy.embedding.weight).all():
        for temperature in temperatures:
            yield _evaluate(state, "last", state.step, task.EXPLORATION_BENCHMARK, EXPLORATION_SAMPLES, temperature)
    if state.best_weights:  # else it collapsed before the first validation
        state.policy.load_state_dict(state.best_weights)
        for name, benchmark in task.HELD_OUT.items():
            yield _evaluate(state, "best", state.best_step, name, benchmark.samples, EVALUATION_TEMPERATURE)


def _evaluate(state: State, checkpoint: str, step: int, benchmark: str, samples: int, temperature: float) -> dict:
    task, generator = state.policy.task, torch.Generator().manual_seed(0)  # the same draws for every method: paired comparisons
    rollouts = sample(state.policy, task.benchmark_prompts()[benchmark], samples, generator, temperature)
    right = task.reward(rollouts.prompts[rollouts.prompt_of_rollout], rollouts.tokens).view(-1, samples).sum(1).int().tolist()
    facts = dict(benchmark=benchmark, checkpoint=checkpoint, step=step, temperature=temperature, samples=samples)
    return facts | {"correct": right}
