"""What a run on H100s may take: GPU-hours, money and disk. An estimate from assumptions, none of them measured by us.

A step is a rollout (tokens over vLLM's throughput), training (tokens x parameters x FLOPs over the GPUs' peak), one after the
other on the same GPUs, and a constant for what happens once a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..runs.spec import ExperimentSpec
from ..support.messages import one_sentence, refuse_unknown

H100_FLOPS = 989e12  # dense bf16, NVIDIA's data sheet
# Per parameter and token: 6 for the update, 2 recomputed by gradient checkpointing, 2 each for the old log-probs and for those
# after the update (the increment of Fig. 2d).
FLOPS_PER_PARAMETER = 6 + 2 + 2 + 2
BYTES_PER_PARAMETER = 4 + 8 + 4  # of a checkpoint, float32: weights, AdamW's two moments, the copy in Hugging Face's format
CHECKPOINTS = 3  # the best, the last and the one being written


class Assumptions(BaseModel):
    """Our guesses, each to be replaced by what you measure. Defaults of the first four depend on the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    parameters: float = Field(gt=0, description="of the policy")
    response_tokens: float = Field(gt=0, description="mean of a response over the run")
    rollout_tokens_per_second: float = Field(gt=0, description="of vLLM, per GPU, the wait for the longest response included")
    prompt_tokens: float = Field(200, ge=0, description="mean of a prompt")
    training_utilisation: float = Field(0.35, gt=0, le=1, description=f"of an H100's {H100_FLOPS / 1e12:.0f} TFLOP/s in bf16")
    seconds_per_step: float = Field(20, ge=0, description="rewards, weights to vLLM, bookkeeping")
    seconds_per_checkpoint: float = Field(60, ge=0, description="written at every validation")
    validation_problems: int = Field(1274, ge=0, description="of the five sets, one response each")
    evaluation_responses: int = Field(6870, ge=0, description="of the best checkpoint at the end (Avg@5, Avg@10), on one GPU")
    start_up_minutes: float = Field(10, ge=0, description="Ray, loading, vLLM's graphs")
    dollars_per_gpu_hour: float = Field(3.0, ge=0, description="of an H100, on demand; ask your provider")


_OF_POLICY = {
    "Qwen/Qwen2.5-Math-1.5B": dict(parameters=1.54e9, response_tokens=800, rollout_tokens_per_second=10_000),
    "Qwen/Qwen3-4B": dict(parameters=4.02e9, response_tokens=1200, rollout_tokens_per_second=5_000),
}


def assumptions(policy: str, **changes: Any) -> Assumptions:
    """The assumptions for a policy (Qwen3-4B's for one that we do not know). Raises ValueError in one sentence."""
    refuse_unknown("assumption", changes, Assumptions.model_fields)
    try:
        return Assumptions(**_OF_POLICY.get(policy, _OF_POLICY["Qwen/Qwen3-4B"]) | changes)
    except ValidationError as error:
        raise ValueError(one_sentence(error)) from None


class Estimate(NamedTuple):
    """Seconds of a mean step by part and of the final evaluation, and what the whole run takes."""

    rollout_seconds: float
    training_seconds: float
    validation_seconds: float
    other_seconds: float
    evaluation_seconds: float
    hours: float
    gpu_hours: float
    dollars: float
    disk: float  # GB


def disk_gigabytes(assumed: Assumptions) -> float:
    """Of the checkpoints that lie in a record at a time."""
    return CHECKPOINTS * BYTES_PER_PARAMETER * assumed.parameters / 1e9


def estimate(spec: ExperimentSpec, assumed: Assumptions, gpus: int = 4) -> Estimate:
    """What `spec` may take on `gpus` H100s."""
    responses = spec.prompts_per_step * spec.group_size
    generation = assumed.response_tokens / (gpus * assumed.rollout_tokens_per_second)
    tokens = responses * (assumed.prompt_tokens + assumed.response_tokens)
    flops = FLOPS_PER_PARAMETER * assumed.parameters * tokens
    rollout, training = responses * generation, flops / (gpus * assumed.training_utilisation * H100_FLOPS)
    validation = (assumed.validation_problems * generation + assumed.seconds_per_checkpoint) / spec.validation_every
    step = rollout + training + validation + assumed.seconds_per_step
    evaluation = assumed.evaluation_responses * assumed.response_tokens / assumed.rollout_tokens_per_second
    hours = (spec.steps * step + evaluation) / 3600 + assumed.start_up_minutes / 60
    return Estimate(
        rollout_seconds=rollout,
        training_seconds=training,
        validation_seconds=validation,
        other_seconds=assumed.seconds_per_step,
        evaluation_seconds=evaluation,
        hours=hours,
        gpu_hours=hours * gpus,
        dollars=hours * gpus * assumed.dollars_per_gpu_hour,
        disk=disk_gigabytes(assumed),
    )
