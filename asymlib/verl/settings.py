"""An ExperimentSpec as verl's configuration: one row a setting, each with where its value comes from.

"paper, ..." marks a value that arXiv 2604.04894 states, "our choice: ..." one that it leaves open; what is not in the table has
the default of verl 0.9.1 (`verl/trainer/config/ppo_trainer.yaml`).
"""

import os
from pathlib import Path
from typing import Any

from ..evaluation.prompts import MAX_PROMPT_TOKENS
from ..evaluation.sets import BENCHMARKS
from ..methods import CATALOGUE, Method
from ..runs.policies import located
from ..runs.spec import POLICY_DEFAULTS, ExperimentSpec
from .setting import ONE_NODE, Machine, Setting, least_cpus
from .target import target_of

APPENDIX = "paper, Appendix C"
_RESUME = ["model", "optimizer", "extra"]

# A method's loss settings: verl's key below actor_rollout_ref.actor, and where the value comes from that most methods share.
_LOSS = {
    "clip_low": ("clip_ratio_low", "our choice: not stated; PPO's and DAPO's 0.2"),
    "clip_high": ("clip_ratio_high", "our choice: not stated but for Clip-higher; PPO's 0.2"),
    "entropy_coeff": ("entropy_coeff", "paper, Section 4: no entropy term but in GRPO w/ Entro.Regularization"),
    "loss_aggregation": ("loss_agg_mode", f"{APPENDIX}: token-level"),
}
ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))
STEPS_FILE = "steps.jsonl"


def settings(
    spec: ExperimentSpec, folder: Path, data: Path, machine: Machine = ONE_NODE, resumed: Path | None = None
) -> list[Setting]:
    """verl's settings for `spec`, in the order that the paper would tell them; each key once, so this is what a launch gives.

    `folder` is the run's record: checkpoints below `checkpoints/`, every sampled response as JSON lines below `samples/`.
    `data` has the parquet files of `asymlib data prepare`. `resumed`: the checkpoint that the run goes on from. Raises
    ValueError for a spec of the lab, and for GPUs that cannot share a mini-batch evenly (verl says so after minutes).
    """
    if spec.engine != "verl":
        raise ValueError(f"engine={spec.engine!r}: only 'verl' has a verl configuration")
    ranks, rollouts = machine.nodes * machine.gpus_per_node, spec.prompts_per_minibatch * spec.group_size
    if rollouts % ranks:
        raise ValueError(
            f"{machine.nodes} x {machine.gpus_per_node} GPUs: their number must divide a mini-batch's {rollouts} rollouts "
            f"(prompts_per_minibatch={spec.prompts_per_minibatch} x group_size={spec.group_size})"
        )
    of_spec = [*_method(spec), *_batches(spec), *_prompts(spec, data)]
    rows = [*of_spec, *_validation(spec, folder, resumed), *_machine(spec, machine), *target_of(spec).rows(spec, machine)]
    added = machine.added()
    for setting in added:
        if setting.name in {key.lstrip("+") for key, _, _ in of_spec}:
            raise ValueError(
                f"--override {setting.name}: the spec defines it, so change the spec (--set): the run gets its own id"
            )
    return list({row.name: row for row in [Setting(*row) for row in rows] + added}.values())  # a later row replaces an earlier


def _method(spec: ExperimentSpec) -> list[tuple]:
    """What is trained, by which method."""
    method = spec.resolved_method
    return [
        (f"{MODEL}.path", located(spec.policy), "paper, Section 3" if spec.policy in POLICY_DEFAULTS else "our choice"),
        ("algorithm.adv_estimator", "asymlib", "asymlib.verl.plugin: the one estimator for every method"),
        ("+algorithm.asymlib.method", spec.method, CATALOGUE[spec.method].source),
        *((f"+algorithm.asymlib.{name}", value, _CHANGE) for name, value in sorted(spec.method_changes.items())),
        *(_loss_setting(name, method, spec) for name in _LOSS),
        (f"{ACTOR}.loss_scale_factor", spec.max_response_tokens, "Dr.GRPO's constant; only seq-mean-token-sum-norm reads it"),
        (f"{ACTOR}.clip_ratio_c", 3.0, "our choice: not stated; verl's dual clip, as in the lab"),
        ("algorithm.use_kl_in_reward", False, "our choice: not stated; no KL term, as DAPO and Dr.GRPO"),
        (f"{ACTOR}.use_kl_loss", False, "our choice: not stated; no KL term, as DAPO and Dr.GRPO"),
    ]  # fmt: skip


def _batches(spec: ExperimentSpec) -> list[tuple]:
    """Batches, lengths, optimiser, seeds."""
    return [
        (f"{ROLLOUT}.n", spec.group_size, _stated(spec, "group_size", 8)),
        ("data.train_batch_size", spec.prompts_per_step, _stated(spec, "prompts_per_step")),
        (f"{ACTOR}.ppo_mini_batch_size", spec.prompts_per_minibatch, _stated(spec, "prompts_per_minibatch")),
        (f"{ACTOR}.ppo_epochs", 1, "our choice: not stated; every rollout is used once"),
        ("data.max_response_length", spec.max_response_tokens, _stated(spec, "max_response_tokens")),
        ("data.max_prompt_length", MAX_PROMPT_TOKENS, "our choice: not stated; fills Qwen2.5-Math's 4,096 positions"),
        (f"{ACTOR}.optim.optimizer", "AdamW", APPENDIX),
        (f"{ACTOR}.optim.lr", spec.learning_rate, _stated(spec, "learning_rate")),
        (f"{ACTOR}.optim.lr_scheduler_type", "constant", "our choice: not stated"),
        (f"{ACTOR}.optim.lr_warmup_steps", spec.lr_warmup_steps, "our choice: not stated"),
        (f"{ACTOR}.optim.weight_decay", 0.01, "our choice: not stated; verl's default"),
        (f"{ACTOR}.grad_clip", 1.0, "our choice: not stated; verl's default"),
        ("trainer.total_training_steps", spec.steps, "our choice: not stated"),
        ("trainer.total_epochs", spec.steps, "our choice: never the limit, the steps are"),
        ("data.seed", spec.seed, "our choice: not stated"),
        (f"{ACTOR}.data_loader_seed", spec.seed, "our choice: not stated"),
        (f"{ROLLOUT}.seed", spec.seed, "our choice: not stated"),
    ]  # fmt: skip


def _prompts(spec: ExperimentSpec, data: Path) -> list[tuple]:
    """Prompts, rewards, sampling."""
    return [
        ("data.train_files", str(data / "train.parquet"), f"{APPENDIX}: MATH's 7,500; our choice: none that is in a test set"),
        ("data.val_files", [str(data / f"{name}.parquet") for name in BENCHMARKS], "paper, Section 4: the five sets"),
        ("data.truncation", "error", "our choice: asymlib.verl.trainer refuses a prompt that verl would cut"),
        ("+data.apply_chat_template_kwargs.enable_thinking", False, f"{APPENDIX}: Qwen3's non-thinking mode; others ignore it"),
        ("reward.custom_reward_function.path", "pkg://asymlib.evaluation.reward", "our choice: not stated; math-verify"),
        ("reward.custom_reward_function.name", "compute_score", "asymlib.evaluation.reward"),
        (f"{ROLLOUT}.temperature", 1.0, "our choice: training temperature not stated"),
        (f"{ROLLOUT}.top_p", 1.0, "our choice: not stated for training"),
        (f"{ROLLOUT}.calculate_log_probs", True, "our choice: compared with the policy's at every step"),
        (f"{ROLLOUT}.val_kwargs.temperature", 0, f"{APPENDIX}: validation at temperature 0"),
        (f"{ROLLOUT}.val_kwargs.do_sample", False, f"{APPENDIX}: validation at temperature 0"),
        (f"{ROLLOUT}.val_kwargs.n", 1, "greedy: one response a problem"),
    ]  # fmt: skip


def _validation(spec: ExperimentSpec, folder: Path, resumed: Path | None) -> list[tuple]:
    """Validation, checkpoints and what else lies in the record."""
    return [
        ("trainer.test_freq", spec.validation_every, _stated(spec, "validation_every", 10)),
        ("trainer.val_before_train", False, "our choice: `asymlib evaluate` does the base model, once for all runs"),
        ("trainer.save_freq", spec.validation_every, "our choice: one at each validation, so the best on MATH-500 exists"),
        (f"{ACTOR}.checkpoint.save_contents", [*_RESUME, "hf_model"], "our choice: to resume, and to evaluate"),
        (f"{ACTOR}.checkpoint.load_contents", _RESUME, "our choice: what resuming needs"),
        ("trainer.default_local_dir", str(folder / "checkpoints"), "our choice: beside the record"),
        ("trainer.resume_mode", "resume_path" if resumed else "disable", "the last step that has line and checkpoint"),
        ("trainer.resume_from_path", str(resumed) if resumed else None, "this attempt"),
        ("+trainer.asymlib.steps_file", str(folder / STEPS_FILE), "this record: the trainer's measurements"),
        ("+trainer.asymlib.increment_every", spec.increment_every, "our choice: steps between Fig. 2d's increments"),
        ("hydra.run.dir", str(folder / "hydra"), "this record"),
        ("hydra.output_subdir", "config", "the configuration as verl read it"),
        ("trainer.rollout_data_dir", str(folder / "samples" / "train"), "our choice: every response can be read again"),
        ("trainer.validation_data_dir", str(folder / "samples" / "validation"), "our choice: every response can be read again"),
        ("trainer.logger", ["console", "tensorboard"], "our choice: both local; verl's wandb and mlflow when asked for"),
        ("+ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR", str(folder / "tensorboard"), "our choice: in the record"),
        ("trainer.project_name", "asymlib", "our choice"),
        ("trainer.experiment_name", spec.run_id, "our choice: the record's name"),
    ]  # fmt: skip


def _machine(spec: ExperimentSpec, machine: Machine) -> list[tuple]:
    """Engine, memory and the Ray that a run starts."""
    cpus = max(os.cpu_count() or 1, least_cpus(machine.gpus_per_node))
    own_ray = [
        ("+ray_kwargs.ray_init.dashboard_host", machine.dashboard_host, "whoever reaches it runs code"),
        ("ray_kwargs.ray_init.num_cpus", cpus, "Ray's logical count: verl's actors reserve CPUs and mostly wait"),
    ]
    return [
        ("trainer.nnodes", machine.nodes, f"{APPENDIX}: one node" if machine.nodes == 1 else "our choice: the paper has one"),
        ("trainer.n_gpus_per_node", machine.gpus_per_node, f"{APPENDIX}: 4 H100" if machine.gpus_per_node == 4 else "ours"),
        ("trainer.v1.trainer_mode", "asymlib", "asymlib.verl.trainer: verl's synchronous trainer that measures"),
        (f"{ACTOR}.strategy", "fsdp2", "our choice: not stated; FSDP, which shards weights, gradients and AdamW's state"),
        (f"{ACTOR}.use_dynamic_bsz", True, "our choice: micro-batches by tokens; the loss is normalised over the mini-batch"),
        (f"{ACTOR}.ppo_max_token_len_per_gpu", 16_384, "our choice: tokens of a micro-batch, at least prompt and response"),
        (f"{ACTOR}.entropy_from_logits_with_chunking", True, "our choice: memory; the same entropy"),
        (f"{ACTOR}.entropy_checkpointing", True, "our choice: memory; the same entropy"),
        (f"{MODEL}.enable_gradient_checkpointing", True, "our choice: memory; the same gradient"),
        (f"{MODEL}.use_remove_padding", True, "our choice: no padding is computed; needs flash-attn"),
        (f"{ROLLOUT}.name", "vllm", "our choice: not stated"),
        (f"{ROLLOUT}.dtype", target_of(spec).dtype, "our choice: also of validation and evaluation"),
        (f"{ROLLOUT}.tensor_model_parallel_size", 1, "our choice: a model fits one GPU, so there are as many replicas as GPUs"),
        (f"{ROLLOUT}.gpu_memory_utilization", 0.6, "our choice: the rest holds the sharded training state"),
        (f"{ROLLOUT}.max_model_len", MAX_PROMPT_TOKENS + spec.max_response_tokens, "our choice: prompt and response"),
        *([] if machine.ray_address else own_ray),
    ]  # fmt: skip


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
