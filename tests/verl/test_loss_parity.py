"""The lab's loss against verl's own functions on random batches (tests/lab/test_loss.py checks it by hand, without verl)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import agg_loss, compute_policy_loss_vanilla
from verl.workers.config import ActorConfig

from asymlib import METHODS, get_method
from asymlib.lab.loss import aggregate, policy_loss

N, T = 12, 7


def batch(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(N, T, generator=generator, dtype=torch.float64)
    new = old + spread * torch.randn(N, T, generator=generator, dtype=torch.float64)
    advantages = 2 * torch.randn(N, T, generator=generator, dtype=torch.float64)
    mask = torch.arange(T) < torch.randint(1, T + 1, (N, 1), generator=generator)
    return new.requires_grad_(), old, advantages, mask, torch.rand(N, T, generator=generator, dtype=torch.float64)


def actor(method):
    return ActorConfig(
        strategy="fsdp2",
        rollout_n=8,
        use_dynamic_bsz=True,
        clip_ratio_low=method.clip_low,
        clip_ratio_high=method.clip_high,
        entropy_coeff=method.entropy_coeff,
        loss_agg_mode=method.loss_aggregation,
        loss_scale_factor=T,
    )


def verl_loss(method, new, old, advantages, mask, entropy, micro_batches=1):
    """The loss that verl's `ppo_loss` descends: micro-batches normalised by their mini-batch, the entropy bonus taken off."""
    config = actor(method)
    config.global_batch_info.update(
        dp_size=1, batch_num_tokens=int(mask.sum()), global_batch_size=N, loss_scale_factor=config.loss_scale_factor
    )
    total, how = 0.0, {"loss_agg_mode": config.loss_agg_mode}
    for rows in torch.arange(N).chunk(micro_batches):
        part, _ = compute_policy_loss_vanilla(old[rows], new[rows], advantages[rows], mask[rows], config=config, **how)
        bonus = agg_loss(entropy[rows], mask[rows], **how, **config.global_batch_info)
        total = total + part - config.entropy_coeff * bonus
    return total


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_value_and_gradient_are_verls(name, micro_batches):
    method = METHODS[name]
    new, old, advantages, mask, entropy = batch(1, spread=0.5)
    ours = policy_loss(new, old, advantages, mask, method, entropy).value
    theirs = verl_loss(method, new, old, advantages, mask, entropy, micro_batches)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    ours_slope, theirs_slope = (torch.autograd.grad(value, new)[0] for value in (ours, theirs))
    torch.testing.assert_close(ours_slope, theirs_slope, rtol=1e-12, atol=1e-15)


@given(
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.01, 0.3, 3.0, 30.0]),  # up to ratios that the dual clip and the overflow guard meet
    low=st.floats(0.01, 0.9),
    high=st.floats(0.01, 5),
    aggregation=st.sampled_from(["token-mean", "seq-mean-token-sum-norm"]),
    entropy_coeff=st.sampled_from([0.0, 0.01]),
)
def test_any_setting_gives_verls_loss_and_clip_fraction(seed, spread, low, high, aggregation, entropy_coeff):
    method = get_method("grpo", clip_low=low, clip_high=high, loss_aggregation=aggregation, entropy_coeff=entropy_coeff)
    new, old, advantages, mask, entropy = batch(seed, spread)
    ours = policy_loss(new, old, advantages, mask, method, entropy)
    torch.testing.assert_close(ours.value, verl_loss(method, new, old, advantages, mask, entropy), rtol=1e-10, atol=1e-12)
    _, metrics = compute_policy_loss_vanilla(old, new, advantages, mask, config=actor(method))
    assert ours.clip_fraction.item() == pytest.approx(metrics["actor/pg_clipfrac"], abs=1e-6)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum-norm"])
def test_aggregation_is_verls(mode):
    _, _, values, mask, _ = batch(2, spread=0.5)
    torch.testing.assert_close(aggregate(values, mask, mode), agg_loss(values, mask, mode, loss_scale_factor=T))
