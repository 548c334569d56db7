"""Against verl 0.9.1's compute_policy_loss_vanilla and agg_loss, written out here from their definition."""

import math

import pytest
import torch

from asymlib import METHODS, get_method
from asymlib.lab.loss import aggregate, policy_loss


def batch(seed, n=16, t=9, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(n, t, generator=generator, dtype=torch.float64)
    log_probs = (old + spread * torch.randn(n, t, generator=generator, dtype=torch.float64)).requires_grad_()
    advantages = torch.randn(n, 1, generator=generator, dtype=torch.float64).expand(n, t)
    mask = torch.arange(t) < torch.randint(1, t + 1, (n, 1), generator=generator)
    entropy = torch.rand(n, t, generator=generator, dtype=torch.float64)
    return log_probs, old, advantages, mask, entropy


def verl_token_loss(ratio, advantage, low, high, dual=3.0):
    loss = max(-advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high))
    return min(loss, -advantage * dual) if advantage < 0 else loss


def verl_agg_loss(losses, mask, mode):
    kept = [[loss for loss, m in zip(*row, strict=True) if m] for row in zip(losses, mask.tolist(), strict=True)]
    if mode == "token-mean":
        return sum(map(sum, kept)) / sum(map(len, kept))
    return sum(map(sum, kept)) / len(kept) / mask.shape[1]  # token sums, mean over sequences, over the constant length


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum-norm"])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.1, 0.5)])
@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
def test_loss_equals_verls(mode, low, high, spread):
    log_probs, old, advantages, mask, _ = batch(0, spread=spread)
    method = get_method("grpo", clip_low=low, clip_high=high, loss_aggregation=mode)
    loss = policy_loss(log_probs, old, advantages, mask, method)
    ratios = (log_probs - old).exp().tolist()
    losses = [
        [verl_token_loss(r, a, low, high) for r, a in zip(*row, strict=True)]
        for row in zip(ratios, advantages.tolist(), strict=True)
    ]
    assert loss.value.item() == pytest.approx(verl_agg_loss(losses, mask, mode), rel=1e-12)
    clipped = [
        (r > 1 + high if a > 0 else r < 1 - low)
        for r, a, m in zip(
            (log_probs - old).exp().flatten().tolist(), advantages.flatten().tolist(), mask.flatten().tolist(), strict=True
        )
        if m
    ]
    assert loss.clip_fraction.item() == pytest.approx(sum(clipped) / len(clipped))


@pytest.mark.parametrize(
    ("ratio", "advantage", "method", "loss", "gradient"),
    [  # of a single token; gradient with respect to its log-prob
        (1.0, 2.0, "grpo", -2.0, -2.0),
        (1.1, 2.0, "grpo", -2.2, -2.2),
        (1.25, 2.0, "grpo", -2.4, 0.0),  # clipped at 1.2
        (1.25, 2.0, "grpo_clip_higher", -2.5, -2.5),  # not before 1.28
        (1.4, 2.0, "grpo_clip_higher", -2.56, 0.0),
        (0.5, 2.0, "grpo", -1.0, -1.0),  # a right token that became rarer is pushed up whatever the ratio
        (0.9, -2.0, "grpo", 1.8, 1.8),
        (0.7, -2.0, "grpo", 1.6, 0.0),  # clipped at 0.8
        (2.0, -2.0, "grpo", 4.0, 4.0),
        (5.0, -2.0, "grpo", 6.0, 0.0),  # dual clip at 3 |A|
    ],
)
def test_clipping_by_hand(ratio, advantage, method, loss, gradient):
    log_prob = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.bool)
    value = policy_loss(
        log_prob, torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), advantage).double(), one, METHODS[method]
    ).value
    assert value.item() == pytest.approx(loss)
    assert torch.autograd.grad(value, log_prob)[0].item() == pytest.approx(gradient)


def test_extreme_ratios_stay_finite():
    log_probs = torch.tensor([[500.0, -500.0]], requires_grad=True)
    for advantage in (1.0, -1.0):
        mask = torch.ones(1, 2, dtype=torch.bool)
        loss = policy_loss(log_probs, torch.zeros(1, 2), torch.full((1, 2), advantage), mask, METHODS["grpo"])
        assert torch.isfinite(loss.value) and torch.isfinite(torch.autograd.grad(loss.value, log_probs)[0]).all()


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_masked_tokens_have_no_say(name):
    log_probs, old, advantages, mask, _ = batch(1)
    value = policy_loss(log_probs, old, advantages, mask, METHODS[name]).value
    (gradient,) = torch.autograd.grad(value, log_probs)
    assert not gradient[~mask].any() and gradient[mask].any()
    other = torch.where(mask, log_probs, -7.0)
    assert policy_loss(other, old, advantages, mask, METHODS[name]).value.item() == pytest.approx(value.item(), rel=1e-12)


def test_aggregation_by_hand():
    values = torch.tensor([[1.0, 2, 9], [4, 9, 9]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    assert aggregate(values, mask, "token-mean").item() == pytest.approx(7 / 3)
    assert aggregate(values, mask, "seq-mean-token-sum-norm").item() == pytest.approx((3 / 3 + 4 / 3) / 2)


def test_token_mean_weighs_long_responses_more_and_dr_grpo_all_tokens_alike():
    """Dr.GRPO: dropping a short response leaves the other tokens' weight in a batch of fixed size; token-mean does not."""
    values, mask = torch.ones(2, 4), torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    for how, share in (("token-mean", 1 / 5), ("seq-mean-token-sum-norm", 1 / 8)):
        leaf = values.clone().requires_grad_()
        aggregate(leaf, mask, how).backward()
        torch.testing.assert_close(leaf.grad, mask * torch.tensor(share))


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum-norm"])
def test_entropy_term_is_subtracted_with_the_same_aggregation(mode):
    log_probs, old, advantages, mask, entropy = batch(2)
    plain = get_method("grpo", loss_aggregation=mode)
    regularised = get_method("grpo", loss_aggregation=mode, entropy_coeff=0.01)
    entropy.requires_grad_()
    value = policy_loss(log_probs, old, advantages, mask, regularised, entropy).value
    bonus = policy_loss(log_probs, old, advantages, mask, plain).value - value
    assert bonus.item() == pytest.approx(0.01 * verl_agg_loss(entropy.tolist(), mask, mode), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, entropy)
    assert (gradient[mask] < 0).all() and not gradient[~mask].any()  # descending it raises entropy
