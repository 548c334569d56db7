"""An ExperimentSpec as verl's configuration: one row a setting, each with where its value comes from.

"paper, ..." marks a value that arXiv 2604.04894 states, "our choice: ..." one that it leaves open; what is not in the table has
the default of verl 0.9.1 (`verl/trainer/config/ppo_trainer.yaml`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..evaluation.data import BENCHMARKS
from ..methods import CATALOGUE, Method
from ..runs.spec import POLICY_DEFAULTS, ExperimentSpec

APPENDIX = "paper, Appendix C"
MAX_PROMPT_TOKENS = 1536
_RESUME = ["model", "optimizer", "extra"]

# A method's loss settings: verl's key below actor_rollout_ref.actor, and where the value comes from that most methods share.
_LOSS = {
    "clip_low": ("clip_ratio_low", "our choice: not stated; PPO's and DAPO's 0.2"),
    "clip_high": ("clip_ratio_high", "our choice: not stated but for Clip-higher; PPO's 0.2"),
    "entropy_coeff": ("entropy_coeff", "paper, Section 4: no entropy term but in GRPO w/ Entro.Regularization"),
    "loss_aggregation": ("loss_agg_mode", f"{APPENDIX}: token-level"),
}


_KEYWORDS = ("null", "true", "false", "nan", "inf")  # not text in hydra's grammar


class Setting(NamedTuple):
    """One override. `key` starts with + where verl's configuration lacks it; `value` is None, bool, number, text or a list."""

    key: str
    value: Any
    source: str

    @property
    def override(self) -> str:
        """As hydra reads it: key=value, text quoted where its grammar needs that."""
        return f"{self.key}={_hydra(self.value)}"


class Machine(NamedTuple):
    """What verl runs on. No part of a spec: the algorithm is the same on other numbers of GPUs."""

    nodes: int = 1
    gpus_per_node: int = 4
    dashboard_host: str = "127.0.0.1"  # of the Ray that a run starts; whoever reaches the dashboard runs code

    @classmethod
    def of_environment(cls) -> Machine:
        """From $ASYMLIB_NODES, $ASYMLIB_GPUS_PER_NODE and $ASYMLIB_DASHBOARD_HOST, as `environment` writes them."""
        given = {name: os.environ[variable] for name in cls._fields if (variable := f"ASYMLIB_{name.upper()}") in os.environ}
        numbers = {name: int(text) for name, text in given.items() if name != "dashboard_host"}
        return cls(**given | numbers)

    @property
    def environment(self) -> dict[str, str]:
        return {f"ASYMLIB_{name.upper()}": str(value) for name, value in self._asdict().items()}


ONE_NODE = Machine()


def _hydra(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value) and value.lower() not in _KEYWORDS):
        return str(value)
    escaped = re.sub(r"(\\*)('|$)", r"\1\1\2", value).replace("'", r"\'").replace("${", r"\${")
    return f"'{escaped}'"


def settings(spec: ExperimentSpec, folder: Path, data: Path, machine: Machine = ONE_NODE) -> list[Setting]:
    """verl's settings for `spec`, in the order that the paper would tell them.

    `folder` is the run's record: checkpoints below `checkpoints/`, every sampled response as JSON lines below `samples/`.
    `data` has the parquet files of `asymlib data prepare`. Raises ValueError for a spec of the lab.
    """
    if spec.engine != "verl":
        raise ValueError(f"engine={spec.engine!r}: only 'verl' has a verl configuration")
    actor, rollout, model = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))
    method = spec.resolved_method
    rows = [
        # What is trained, by which method.
        (f"{model}.path", spec.policy, "paper, Section 3" if spec.policy in POLICY_DEFAULTS else "our choice: not the paper's"),
        ("algorithm.adv_estimator", "asymlib", "asymlib.verl.plugin: the one estimator for every method"),
        ("+algorithm.asymlib.method", spec.method, CATALOGUE[spec.method].source),
        *((f"+algorithm.asymlib.{name}", value, _CHANGE) for name, value in sorted(spec.method_changes.items())),
        *(_loss_setting(name, method, spec) for name in _LOSS),
        (f"{actor}.loss_scale_factor", spec.max_response_tokens, "Dr.GRPO's constant; only seq-mean-token-sum-norm reads it"),
        (f"{actor}.clip_ratio_c", 3.0, "our choice: not stated; verl's dual clip, as in the lab"),
        ("algorithm.use_kl_in_reward", False, "our choice: not stated; no KL term, as DAPO and Dr.GRPO"),
        (f"{actor}.use_kl_loss", False, "our choice: not stated; no KL term, as DAPO and Dr.GRPO"),
        # Batches, lengths, optimiser.
        (f"{rollout}.n", spec.group_size, _stated(spec, "group_size", 8)),
        ("data.train_batch_size", spec.prompts_per_step, _stated(spec, "prompts_per_step")),
        (f"{actor}.ppo_mini_batch_size", spec.prompts_per_minibatch, _stated(spec, "prompts_per_minibatch")),
        (f"{actor}.ppo_epochs", 1, "our choice: not stated; every rollout is used once"),
        ("data.max_response_length", spec.max_response_tokens, _stated(spec, "max_response_tokens")),
        ("data.max_prompt_length", MAX_PROMPT_TOKENS, "our choice: not stated; fills Qwen2.5-Math's 4,096 positions"),
        (f"{actor}.optim.optimizer", "AdamW", APPENDIX),
        (f"{actor}.optim.lr", spec.learning_rate, _stated(spec, "learning_rate")),
        (f"{actor}.optim.lr_scheduler_type", "constant", "our choice: not stated"),
        (f"{actor}.optim.lr_warmup_steps", spec.lr_warmup_steps, "our choice: not stated"),
        (f"{actor}.optim.weight_decay", 0.01, "our choice: not stated; verl's default"),
        (f"{actor}.grad_clip", 1.0, "our choice: not stated; verl's default"),
        ("trainer.total_training_steps", spec.steps, "our choice: not stated"),
        ("trainer.total_epochs", spec.steps, "our choice: never the limit, the steps are"),
        ("data.seed", spec.seed, "our choice: not stated"),
        (f"{actor}.data_loader_seed", spec.seed, "our choice: not stated"),
        (f"{rollout}.seed", spec.seed, "our choice: not stated"),
        # Prompts, rewards, sampling.
        ("data.train_files", str(data / "train.parquet"), f"{APPENDIX}: MATH's 7,500; our choice: none that is in a test set"),
        ("data.val_files", [str(data / f"{name}.parquet") for name in BENCHMARKS], "paper, Section 4: the five sets"),
        ("+data.apply_chat_template_kwargs.enable_thinking", False, f"{APPENDIX}: Qwen3's non-thinking mode; others ignore it"),
        ("reward.custom_reward_function.path", "pkg://asymlib.evaluation.reward", "our choice: not stated; math-verify"),
        ("reward.custom_reward_function.name", "compute_score", "asymlib.evaluation.reward"),
        (f"{rollout}.temperature", 1.0, "our choice: training temperature not stated"),
        (f"{rollout}.top_p", 1.0, "our choice: not stated for training"),
        (f"{rollout}.val_kwargs.temperature", 0, f"{APPENDIX}: validation at temperature 0"),
        (f"{rollout}.val_kwargs.do_sample", False, f"{APPENDIX}: validation at temperature 0"),
        (f"{rollout}.val_kwargs.n", 1, "greedy: one response a problem"),
        # Validation and checkpoints.
        ("trainer.test_freq", spec.validation_every, _stated(spec, "validation_every", 10)),
        ("trainer.val_before_train", False, "our choice: `asymlib evaluate` does the base model, once for all runs"),
        ("trainer.save_freq", spec.validation_every, "our choice: one at each validation, so the best on MATH-500 exists"),
        (f"{actor}.checkpoint.save_contents", [*_RESUME, "hf_model"], "our choice: to resume, and to evaluate"),
        (f"{actor}.checkpoint.load_contents", _RESUME, "our choice: what resuming needs"),
        ("trainer.default_local_dir", str(folder / "checkpoints"), "our choice: beside the record"),
        ("trainer.resume_mode", "auto", "our choice: the same command goes on from the last checkpoint"),
        ("trainer.rollout_data_dir", str(folder / "samples" / "train"), "our choice: every response can be read again"),
        ("trainer.validation_data_dir", str(folder / "samples" / "validation"), "our choice: every response can be read again"),
        ("trainer.logger", ["console"], "our choice: the metrics are in the record"),
        ("trainer.project_name", "asymlib", "our choice"),
        ("trainer.experiment_name", spec.run_id, "our choice: the record's name"),
        # The machine.
        ("trainer.nnodes", machine.nodes, f"{APPENDIX}: one node" if machine.nodes == 1 else "our choice: the paper has one"),
        ("trainer.n_gpus_per_node", machine.gpus_per_node, f"{APPENDIX}: 4 H100" if machine.gpus_per_node == 4 else "ours"),
        ("trainer.v1.trainer_mode", "asymlib", "asymlib.verl.trainer: verl's synchronous trainer that measures"),
        (f"{actor}.strategy", "fsdp2", "our choice: not stated; FSDP, which shards weights, gradients and AdamW's state"),
        (f"{actor}.use_dynamic_bsz", True, "our choice: micro-batches by tokens; the loss is normalised over the mini-batch"),
        (f"{actor}.ppo_max_token_len_per_gpu", 16_384, "our choice: tokens of a micro-batch, at least prompt and response"),
        (f"{actor}.entropy_from_logits_with_chunking", True, "our choice: memory; the same entropy"),
        (f"{actor}.entropy_checkpointing", True, "our choice: memory; the same entropy"),
        (f"{model}.enable_gradient_checkpointing", True, "our choice: memory; the same gradient"),
        (f"{model}.use_remove_padding", True, "our choice: no padding is computed; needs flash-attn"),
        (f"{rollout}.name", "vllm", "our choice: not stated"),
        (f"{rollout}.tensor_model_parallel_size", 1, "our choice: a model fits one GPU, so there are as many replicas as GPUs"),
        (f"{rollout}.gpu_memory_utilization", 0.6, "our choice: the rest holds the sharded training state"),
        (f"{rollout}.max_model_len", MAX_PROMPT_TOKENS + spec.max_response_tokens, "our choice: prompt and response"),
    ]  # fmt: skip
    return [Setting(*row) for row in rows]


_CHANGE = "this run's change of the method"


def _loss_setting(name: str, method: Method, spec: ExperimentSpec) -> Setting:
    key, source = _LOSS[name]
    value = getattr(method, name)
    if name in spec.method_changes:
        source = _CHANGE
    elif value != Method.model_fields[name].default:
        source = method.source
    return Setting(f"actor_rollout_ref.actor.{key}", value, source)


def _stated(spec: ExperimentSpec, field: str, stated: Any = None) -> str:
    """Whether the spec's value is the one that the paper states for its model."""
    stated = POLICY_DEFAULTS.get(spec.policy, {}).get(field, stated)
    if getattr(spec, field) == stated:
        return APPENDIX
    return "our choice: the paper trains other models" if stated is None else f"our choice: the paper has {stated} (Appendix C)"


def overrides(spec: ExperimentSpec, folder: Path, data: Path, machine: Machine = ONE_NODE) -> list[str]:
    """The settings as hydra overrides: 'key=value'."""
    return [setting.override for setting in settings(spec, folder, data, machine)]
