"""One training step of the lab against one of TRL's GRPOTrainer (arXiv 2402.03300), on exactly the same tokens.

TRL is no dependency of the project: `pip install --no-deps trl==1.16.0` beside it. The policy is the same, as the lab's own
module and as the Hugging Face folder that `asymlib export` writes. Every step both roll out the same prompts; then both update
on the lab's rollouts. 32 prompts x 8 rollouts of at most 13 tokens, 4 mini-batches, AdamW, float32, one thread; TRL with what
is fastest for it on a CPU (no checkpointing, fused AdamW, no logging, 64 rollouts at once, sdpa).
"""

import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", TOKENIZERS_PARALLELISM="false")

import torch
from common import conditions, median_ratio, report
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from asymlib import group_advantages, make_spec
from asymlib.lab.export import export_policy
from asymlib.lab.optimizer import AdamW
from asymlib.lab.sampler import sample
from asymlib.lab.step import update
from asymlib.lab.tasks import to_text
from asymlib.lab.tasks import walk as task
from asymlib.lab.trainer import keep_freed_memory
from asymlib.lab.warmup import load_warm_policy

ROOT = Path(__file__).parents[1]
STEPS, WARM_UP = 42, 2


class Comparison:
    """Runs the lab's step inside TRL's, where TRL asks for rollouts, and times the parts of both."""

    def __init__(self, name: str, steps: int = STEPS):
        self.spec, self.steps = make_spec(method="grpo", policy=name), steps
        self.policy = load_warm_policy(name, 0, ROOT / "results")
        self.optimizer = AdamW(self.policy)
        self.generator = torch.Generator().manual_seed(0)
        self.prompts = {
            to_text(task, p): p for p in task.training_prompts(self.spec.prompts_per_step * (steps + 2), self.generator)
        }
        self.seconds = {part: [] for part in ("TRL rollout", "TRL update", "lab rollout", "lab update")}
        self.tokens: dict[str, list[int]] = {"TRL": [], "lab": []}
        self.rewards = torch.empty(0)
        self.started: float | None = None  # of TRL's step
        self.paused = 0.0  # CPU seconds inside TRL's step that are not TRL's

    def roll_out(self, texts: list[str], trainer: GRPOTrainer) -> dict:
        entered = time.process_time()
        spec = self.spec
        prompts = torch.stack([self.prompts[text] for text in texts[:: spec.group_size]])
        prompt_ids = prompts.repeat_interleave(spec.group_size, 0).tolist()
        started = time.process_time()
        completions, _ = trainer._generate_single_turn(prompt_ids, None, {}, spec.group_size)
        self.seconds["TRL rollout"].append(time.process_time() - started)
        self.tokens["TRL"].append(sum(map(len, completions)))

        started = time.process_time()
        rollouts = sample(self.policy, prompts, spec.group_size, self.generator)
        ids = rollouts.prompt_of_rollout
        self.rewards = task.reward(prompts[ids], rollouts.tokens)
        self.seconds["lab rollout"].append(time.process_time() - started)
        self.tokens["lab"].append(int(rollouts.lengths.sum()))
        started = time.process_time()
        advantages = group_advantages(self.rewards, ids, spec.resolved_method)
        update(spec, self.policy, self.optimizer, spec.learning_rate, rollouts, advantages, self.generator)
        self.seconds["lab update"].append(time.process_time() - started)
        responses = [row[:length].tolist() for row, length in zip(rollouts.tokens, rollouts.lengths, strict=True)]
        log_probs = [row[:length].tolist() for row, length in zip(rollouts.log_probs, rollouts.lengths, strict=True)]
        self.paused += time.process_time() - entered
        return {"prompt_ids": prompt_ids, "completion_ids": responses, "logprobs": log_probs}

    def run(self, folder: str) -> None:
        """Train to the end; `folder` is for what TRL writes."""
        model = export_policy(self.spec.policy, 0, ROOT / "results", Path(folder) / "policy")
        spec = self.spec
        minibatches = spec.prompts_per_step // spec.prompts_per_minibatch
        config = GRPOConfig(
            output_dir=f"{folder}/trl",
            per_device_train_batch_size=spec.prompts_per_minibatch * spec.group_size,
            steps_per_generation=minibatches,
            num_generations=spec.group_size,
            max_completion_length=task.RESPONSE_TOKENS,
            max_steps=minibatches * self.steps,
            learning_rate=spec.learning_rate,
            loss_type="dapo",
            beta=0.0,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            model_init_kwargs={"dtype": "float32"},
        )
        comparison = self

        class Timed(GRPOTrainer):
            def training_step(self, *arguments, **named):
                if self.state.global_step % minibatches == 0:
                    comparison.ended()
                return super().training_step(*arguments, **named)

        trainer = Timed(
            model=str(model),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": list(self.prompts)}),
            reward_funcs=lambda completions, **_: self.rewards.tolist(),
            rollout_func=self.roll_out,
        )
        trainer.train()
        self.ended()

    def ended(self) -> None:
        """A whole step of TRL has ended, or the first begins."""
        now = time.process_time()
        if self.started is not None:
            self.seconds["TRL update"].append(now - self.started - self.paused)
        self.started, self.paused = now, 0.0

    def rows(self) -> list[dict]:
        per_token = {
            part: [s / n for s, n in zip(seconds, self.tokens[part.split()[0]], strict=True)][WARM_UP:]
            for part, seconds in self.seconds.items()
            if part.endswith("rollout")
        }
        # TRL's rollouts have lengths of their own: their time counts as if they had the lab's tokens. Updates share theirs.
        tokens = self.tokens["lab"][WARM_UP:]
        step = {
            f"{who} {part}": [s * n for s, n in zip(per_token[f"{who} rollout"], tokens, strict=True)]
            if part == "rollout"
            else self.seconds[f"{who} update"][WARM_UP:]
            for who in ("TRL", "lab")
            for part in ("rollout", "update")
        }
        for who in ("TRL", "lab"):
            step[f"{who} step"] = [a + b for a, b in zip(step[f"{who} rollout"], step[f"{who} update"], strict=True)]
        return [
            {
                "policy": self.spec.policy,
                "part": part,
                "TRL, ms": 1e3 * statistics.median(step[f"TRL {part}"]),
                "lab, ms": 1e3 * statistics.median(step[f"lab {part}"]),
                "TRL / lab": median_ratio(step[f"TRL {part}"], step[f"lab {part}"]),
            }
            for part in ("rollout", "update", "step")
        ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    about = conditions(STEPS - WARM_UP)
    rows = []
    for name in ("small", "base"):
        with tempfile.TemporaryDirectory() as folder:
            comparison = Comparison(name)
            comparison.run(folder)
            rows += comparison.rows()
    report("trl", "One training step, TRL's GRPOTrainer against the lab", rows, about)
