"""The methods in TRL 1.16.0: its GRPOTrainer with a method's advantages, and what the paper plots in TRL's own log.

    AsymGRPOTrainer(model, reward, GRPOConfig(**loss_settings("asymgrpo")), train_dataset=prompts, method="asymgrpo").train()

Shapes: B rollouts of this process, N of all processes, P = N / G groups of G neighbours, T response tokens.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from trl import GRPOConfig, GRPOTrainer  # the package: imports are absolute, whatever this file is called

from .advantages import add_entropy_advantage, group_advantages
from .covariance import covariance_by_accuracy, length_normalized_log_prob
from .methods import Method, get_method
from .runs.records import COVARIANCE_STEPS

_LOSS_TYPE = {"token-mean": "dapo", "seq-mean-token-sum-norm": "dr_grpo"}


def loss_settings(method: str | Method) -> dict[str, Any]:
    """The fields of GRPOConfig that make TRL's loss the method's (Eq. 2): GRPOConfig(..., **loss_settings("dr_grpo")).

    Raises ValueError for an unknown method.
    """
    method = _method(method)
    return {
        "epsilon": method.clip_low,
        "epsilon_high": method.clip_high,
        "entropy_coef": method.entropy_coeff,
        "loss_type": _LOSS_TYPE[method.loss_aggregation],
        # TRL's defaults; another value is another loss than Eq. 2's, or has no effect here (scale_rewards).
        "beta": 0.0,  # of the KL to a reference policy
        "scale_rewards": "group",
        "importance_sampling_level": "token",
        "delta": None,
        "use_adaptive_entropy": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "mask_truncated_completions": False,
        "vllm_importance_sampling_correction": False,  # weighs or masks by vLLM's own log-probs, where vLLM samples
    }


class AsymGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer whose advantages are `group_advantages(rewards, groups, method)`.

    Arguments are GRPOTrainer's, of which `args` must be given, and `method`: a name of METHODS or a `Method`. Beside its own
    metrics TRL then logs `asymlib/all_solved` and `asymlib/none_solved` (shares of groups), `asymlib/log_prob_increment_pos`
    (nats a right rollout, Fig. 2d, h) and, of the first 40 generations, `asymlib/covariance/<accuracy>` (Eq. 14); this costs
    two forward passes a generation. TensorBoard's event files are always written, to `output_dir/runs`.

    Raises ValueError for a loss that is not the method's, a group size that its curve does not allow, and, in training, for
    rewards whose weighted sum is not 0 or 1.
    """

    def __init__(self, model, reward_funcs, args: GRPOConfig, *rest, method: str | Method = "asymgrpo", **named):
        self.method = _method(method)
        _refuse_other_settings(self.method, args)
        super().__init__(model, reward_funcs, args, *rest, **named)
        self.add_callback(_AfterUpdate(self))
        if "tensorboard" not in args.report_to:
            self.add_callback(TensorBoardCallback())

    def _calculate_rewards(self, *arguments, **named) -> Tensor:
        rewards = super()._calculate_rewards(*arguments, **named)  # (N, functions)
        weighted = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        self.rewards_N = weighted.masked_fill(rewards.isnan().all(1), torch.nan)  # no function answered: refused below
        return rewards

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        group_size = self.num_generations if self.model.training else self.num_generations_eval
        groups_N = torch.arange(len(self.rewards_N)) // group_size
        advantages_N = group_advantages(self.rewards_N, groups_N, self.method)
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), len(advantages_N))):  # TRL's own, which it logs beside the completions
            logged.pop()
        logged.extend(advantages_N.tolist())
        first = len(batch["advantages"]) * self.accelerator.process_index
        here = slice(first, first + len(batch["advantages"]))
        log_probs, entropy = self._score(batch)
        batch["advantages"] = advantages_N[here]
        if self.method.entropy_advantage:
            batch["advantages"] = add_entropy_advantage(advantages_N[here, None], entropy, *self.method.entropy_advantage)
        if self.model.training:
            self._measure(length_normalized_log_prob(log_probs, _mask(batch)), advantages_N, groups_N)
            self.before_update = batch, log_probs, self.rewards_N[here] == 1
        return batch

    @torch.no_grad()
    def _score(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(B, T) log-probs and entropies, in nats, of the batch's responses under the policy as it is now."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        accepted = inspect.signature(self._get_per_token_logps_and_entropies).parameters
        settings = {name: value for name, value in batch.items() if name in accepted}  # images
        settings |= {"batch_size": self.args.per_device_train_batch_size, "compute_entropy": True}
        length = batch["completion_ids"].shape[1]
        return self._get_per_token_logps_and_entropies(self.model, ids, mask, length, **settings)[:2]

    def _measure(self, log_probs_B: Tensor, advantages_N: Tensor, groups_N: Tensor) -> None:
        """What the rollouts tell before the update, into TRL's metrics."""
        accuracy_P = self.rewards_N.view(-1, self.num_generations).mean(1)
        measured = {"all_solved": (accuracy_P == 1).float().mean(), "none_solved": (accuracy_P == 0).float().mean()}
        generations = self.state.global_step * self.args.gradient_accumulation_steps // self._generate_every
        if generations < COVARIANCE_STEPS:
            log_probs_N = self.accelerator.gather(log_probs_B)
            for row in covariance_by_accuracy(log_probs_N, advantages_N, self.rewards_N, groups_N).itertuples():
                measured[f"covariance/{row.accuracy:.3f}"] = row.covariance
        for name, value in measured.items():
            self._metrics["train"][f"asymlib/{name}"].append(float(value))

    @property
    def _generate_every(self) -> int:
        """Micro-batches that are trained on one generation's rollouts."""
        return self.args.steps_per_generation * self.num_iterations

    def measure_increment(self) -> None:
        """E[log pi_new(y) - log pi_old(y)] over the right rollouts, once a generation's last update is done."""
        if self._step % self._generate_every:
            return
        batch, old, right_B = self.before_update
        gained_B = ((self._score(batch)[0] - old) * _mask(batch)).sum(1)[right_B]
        total, right = self.accelerator.reduce(torch.stack([gained_B.sum(), right_B.sum()]), reduction="sum").tolist()
        if right:
            self._metrics["train"]["asymlib/log_prob_increment_pos"].append(total / right)


class _AfterUpdate(TrainerCallback):
    """Tells the trainer that the optimizer has stepped, before transformers logs the step."""

    def __init__(self, trainer: AsymGRPOTrainer):
        self.trainer = trainer

    def on_step_end(self, *_, **__):
        self.trainer.measure_increment()


def _method(method: str | Method) -> Method:
    return get_method(method) if isinstance(method, str) else method


def _mask(batch: dict[str, Any]) -> Tensor:
    """(B, T): 1 on the tokens that the loss sees; a tool's answer is none."""
    return batch["completion_mask"] * batch.get("tool_mask", 1)


def _refuse_other_settings(method: Method, args: GRPOConfig) -> None:
    """Raise ValueError where TRL's loss is not the method's, or a group size is none of its curve's."""
    given = vars(args) | ({"epsilon_high": args.epsilon} if args.epsilon_high is None else {})
    for name, needed in loss_settings(method).items():
        if given[name] != needed and (args.use_vllm or not name.startswith("vllm_")):
            raise ValueError(f"{name}={given[name]!r}: method {method.name!r} needs {needed!r}; see asymlib.trl.loss_settings")
    for size in (args.num_generations, args.num_generations_eval or args.num_generations):
        try:
            method.table(size)
        except ValueError as error:
            raise ValueError(f"num_generations={size}: method {method.name!r} does not allow it, {error}") from None
