"""The trainer `asymlib`: verl's synchronous trainer, which also measures what the paper plots (Fig. 1c, 2).

    trainer.v1.trainer_mode=asymlib +trainer.asymlib.steps_file=<path>

After every step it appends one line to that file: the step's metrics and its groups' covariance (Eq. 13, first 40
steps). `launch.py` makes the run's record of these lines.

Shapes: N rollouts, T response tokens.
"""

import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transfer_queue as tq
from omegaconf import open_dict
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_from_nested, response_to_nested

from ..advantages import add_entropy_advantage, group_codes
from ..covariance import group_covariance, length_normalized_log_prob
from ..methods import Method
from ..runs.lines import append_sealed
from ..runs.records import COVARIANCE_STEPS
from ..support.messages import refuse_unknown
from .estimator import NAME, is_padding, method_of

SETTINGS = ("steps_file", "poll_seconds", "increment_every")  # of trainer.asymlib
LEAST_SHARE = 0.8  # of a step's or a validation's rollouts; verl goes on without those that fail or whose reward does
TIMINGS = {"step": "step", "checkpoint": "save_checkpoint", "validation": "testing"}  # verl's, where a step has them


@register_trainer(NAME)
class DiagnosingTrainer(PPOTrainerSync):
    """PPOTrainerSync with the Entropy Advantage and one line of diagnostics a step."""

    def __init__(self, config):
        self.method = method_of(config.algorithm)
        _refuse_other_loss_settings(self.method, config)
        settings = config.trainer.get(NAME) or {}
        refuse_unknown(f"key of trainer.{NAME}", settings, SETTINGS)
        if "steps_file" not in settings:
            raise ValueError(f"trainer.{NAME}.steps_file is missing: the file that the diagnostics go to")
        self.steps_file = Path(settings["steps_file"])
        self.measured, self.covariance, self.validated, self.right = {}, [], (0, {}), []
        with open_dict(config):
            config.algorithm[NAME].entropy_advantage = None  # the estimator's part is the rest of the method
        super().__init__(config)

    def _init_dataloader(self):
        super()._init_dataloader()
        for dataset in (self.train_dataset, self.val_dataset):
            refuse_long_prompts(dataset)

    def _build_replay_buffer(self):
        self.trainer_mode = "sync"  # verl compares the mode's name where it means this class's behaviour
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.config.trainer[NAME].get("poll_seconds", buffer.poll_interval)
        return buffer

    def _compute_advantage(self, batch, metrics):
        batch = super()._compute_advantage(batch, metrics)
        fields = ["uid", "response_mask", "rm_scores", "old_log_probs", "advantages", "entropy", "rollout_log_probs"]
        nested = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        uids = np.array(nested.pop("uid").tolist(), dtype=object)
        padded = nested.to_padded_tensor()
        self._measure(uids, padded)
        if self.method.entropy_advantage:
            advantages = add_entropy_advantage(padded["advantages"], padded["entropy"], *self.method.entropy_advantage)
            changed = response_to_nested(advantages * padded["response_mask"], nested["response_mask"])
            batch = tq.kv_batch_put(
                keys=batch.keys,
                partition_id=batch.partition_id,
                fields=TensorDict({"advantages": changed}, batch_size=len(batch)),
            )
        return batch

    def _measure(self, uids: np.ndarray, batch: TensorDict) -> None:
        """What the step's rollouts tell before the update; `batch` holds (N, T) tensors."""
        real = torch.as_tensor(~is_padding(uids))
        uids, mask, log_probs = uids[real.numpy()], batch["response_mask"][real].bool(), batch["old_log_probs"][real]
        rewards = batch["rm_scores"][real].sum(-1)
        groups = group_codes(uids)
        accuracy = np.bincount(groups, weights=rewards) / np.bincount(groups)
        _refuse_few(len(uids), self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n, self.global_steps)
        self.measured = {
            "rollouts": len(uids),
            "reward": rewards.mean().item(),
            "entropy": batch["entropy"][real][mask].mean().item(),
            "all_solved": float((accuracy == 1).mean()),
            "none_solved": float((accuracy == 0).mean()),
            "response_length": mask.sum(-1).float().mean().item(),
            "tokens": int(mask.sum()),
        }
        gap = (batch["rollout_log_probs"][real] - log_probs)[mask].abs()
        self.measured |= {"rollout_log_prob_gap": gap.max().item(), "rollout_log_prob_gap_mean": gap.mean().item()}
        self.right = [bool(right) for right in (batch["rm_scores"].sum(-1) > 0) & real]
        self.covariance = []
        if self.global_steps <= COVARIANCE_STEPS:
            advantages_N = batch["advantages"][real][:, 0]  # one advantage a rollout: the Entropy Advantage comes later
            normalized_N = length_normalized_log_prob(log_probs, mask)
            if torch.isfinite(normalized_N).all():  # else the run ends with this step
                covariance = group_covariance(normalized_N, advantages_N, groups)
                self.covariance = [[p, c] for p, c in zip(accuracy.tolist(), covariance.tolist(), strict=True)]

    def _update_actor(self, batch, metrics):
        batch = super()._update_actor(batch, metrics)
        if self.global_steps % self.config.trainer[NAME].get("increment_every", 1) == 0:
            started = time.perf_counter()
            self.measured["log_prob_increment_pos"] = self._increment(batch)
            self.measured["seconds_increment"] = time.perf_counter() - started
        return batch

    def _increment(self, batch) -> float | None:
        """E[log pi_new(y) - log pi_old(y)] over the right rollouts, in nats a rollout (Fig. 2d, h); None if none is right.

        A forward pass over them alone, filled up with others to a number that the ranks can share.
        """
        count = sum(self.right)
        if not count:
            return None
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        first = sorted(range(len(self.right)), key=lambda row: not self.right[row])  # the right ones first, in their order
        keys = [batch.keys[row] for row in first[: -(-count // ranks) * ranks]]
        part = batch.select_keys(keys)
        temperature = self.config.actor_rollout_ref.rollout.temperature
        part.extra_info.update({"calculate_entropy": False, "compute_loss": False, "temperature": temperature})
        self.actor_rollout_wg.compute_log_prob(part)
        fields = ["response_mask", "old_log_probs", "log_probs"]
        nested = tq.kv_batch_get(keys=keys[:count], partition_id=batch.partition_id, select_fields=fields)
        nested["log_probs"] = response_from_nested(nested["log_probs"], nested["response_mask"])
        rows = nested.to_padded_tensor()
        return ((rows["log_probs"] - rows["old_log_probs"]) * rows["response_mask"]).sum(-1).mean().item()

    def _val_metrics_update(self, data_sources, sample_uids, reward_extra_infos_dict, *rest, **named):
        _refuse_few(len(data_sources), sum((named.get("expected_acc_counts") or {}).values()), self.global_steps)
        rewards = pd.Series(reward_extra_infos_dict["reward"], dtype=float).groupby(np.asarray(data_sources)).mean()
        self.validated = (self.global_steps, {f"val_acc/{name}": accuracy for name, accuracy in rewards.items()})
        return super()._val_metrics_update(data_sources, sample_uids, reward_extra_infos_dict, *rest, **named)

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        line = {"step": global_steps} | self.measured
        line["clip_fraction"] = float(metrics["actor/pg_clipfrac"])
        line["grad_norm"] = float(metrics["actor/grad_norm"])
        line["seconds_rollout"] = timing_raw["gen"]
        line["memory"] = float(metrics.get("actor/perf/max_memory_allocated_gb", 0.0)) or None
        line["seconds_update"] = sum(timing_raw[part] for part in ("old_log_prob", "adv", "update_actor"))
        line |= {f"seconds_{ours}": timing_raw[name] for ours, name in TIMINGS.items() if name in timing_raw}
        validated_step, accuracies = self.validated
        if validated_step == global_steps:  # and not the one before training
            line |= {"val_acc": sum(accuracies.values()) / len(accuracies)} | accuracies
        broken = [name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
        if broken:
            collapse = f"{broken[0]} is {line[broken[0]]} at step {global_steps}"
            append_sealed(self.steps_file, {"collapse": collapse})
            raise FloatingPointError(collapse)
        append_sealed(self.steps_file, {"metrics": line, "covariance": self.covariance})
        metrics.update({f"{NAME}/{name}": value for name, value in line.items() if value is not None})


def _refuse_few(came: int, asked: int, step: int) -> None:
    """Raises RuntimeError before anything is learned from what is left where too many rollouts failed."""
    if came < LEAST_SHARE * asked:
        raise RuntimeError(
            f"step {step}: {came} of {asked} rollouts came, the others or their rewards failed: see the errors above"
        )


def refuse_long_prompts(dataset) -> None:
    """Raises ValueError for a prompt longer than data.max_prompt_length: verl's agent loop would cut its beginning."""
    limit, options = dataset.max_prompt_length, dict(dataset.apply_chat_template_kwargs)
    for row in dataset.dataframe:
        chat = row[dataset.prompt_key]
        text = dataset.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **options)
        if (tokens := len(dataset.tokenizer(text, add_special_tokens=False)["input_ids"])) > limit:
            place = f"{row['data_source']}, row {row['extra_info']['index']}"
            raise ValueError(
                f"{place}: {tokens} tokens, more than data.max_prompt_length={limit}; prepare the data without --tokenizer"
            )


def _refuse_other_loss_settings(method: Method, config) -> None:
    """Raise ValueError where verl's loss is not the method's: the block under `algorithm` alone does not change the loss."""
    wanted = {
        "clip_ratio_low": method.clip_low,
        "clip_ratio_high": method.clip_high,
        "entropy_coeff": method.entropy_coeff,
        "loss_agg_mode": method.loss_aggregation,
    }
    if method.loss_aggregation == "seq-mean-token-sum-norm":
        wanted["loss_scale_factor"] = config.data.max_response_length  # verl's default changes with the batch
    actor = config.actor_rollout_ref.actor
    for key, value in wanted.items():
        if actor[key] != value:
            raise ValueError(f"actor_rollout_ref.actor.{key}={actor[key]!r}: method {method.name!r} needs {value!r}")
