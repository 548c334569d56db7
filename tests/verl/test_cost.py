"""The estimate's arithmetic, by hand."""

import pytest

from asymlib import make_spec
from asymlib.verl.cost import H100_FLOPS, assumptions, disk_gigabytes, estimate

ROUND = dict(
    parameters=1e9,
    response_tokens=1000,
    prompt_tokens=0,
    rollout_tokens_per_second=1000,
    training_utilisation=1,
    seconds_per_step=10,
    seconds_per_checkpoint=30,
    validation_problems=400,
    evaluation_responses=60,
    start_up_minutes=6,
    dollars_per_gpu_hour=2,
)
SPEC = make_spec(method="grpo", policy="Qwen/Qwen3-4B", steps=36)  # 128 x 8 = 1024 responses a step


def test_by_hand():
    found = estimate(SPEC, assumptions(SPEC.policy, **ROUND), gpus=4)
    assert found.rollout_seconds == pytest.approx(1024 * 1000 / 4000)  # 256 s
    assert found.training_seconds == pytest.approx(12 * 1e9 * 1024 * 1000 / (4 * H100_FLOPS))  # 3.1 s
    assert found.validation_seconds == pytest.approx((400 * 1000 / 4000 + 30) / 10)  # 13 s
    assert found.evaluation_seconds == 60  # on one GPU
    step = 256 + found.training_seconds + 13 + 10
    assert found.hours == pytest.approx((36 * step + 60) / 3600 + 0.1)
    assert found.gpu_hours == pytest.approx(4 * found.hours) and found.dollars == pytest.approx(8 * found.hours)
    assert found.disk == pytest.approx(3 * 16)


def test_twice_the_gpus_halve_the_work_but_not_what_is_constant():
    assumed = assumptions(SPEC.policy, **ROUND)
    four, eight = estimate(SPEC, assumed, 4), estimate(SPEC, assumed, 8)
    assert four.rollout_seconds == pytest.approx(2 * eight.rollout_seconds)
    assert four.hours / 2 < eight.hours < four.hours


def test_the_larger_model_needs_more_disk_and_an_unknown_one_is_taken_for_it():
    small, large = (disk_gigabytes(assumptions(p)) for p in ("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen3-4B"))
    assert small < large == disk_gigabytes(assumptions("some/model"))
