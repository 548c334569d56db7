"""What the advantages do to a policy: Eq. 8 is a reweighting of log-prob gradients, Eq. 11 its two halves.

The policy is a softmax per position: logits (T, V), a rollout picks one of V answers at each of T positions.
"""

import pytest
import torch

from asymlib import METHODS, get_method, group_advantages
from asymlib.lab.loss import policy_loss

G, T, V = 8, 3, 5
REWARDS = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0], dtype=torch.float64)
UNCLIPPED = dict(clip_low=0.99, clip_high=99.0)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(T, V, generator=generator, dtype=torch.float64)
    new = (old + 0.1 * torch.randn(T, V, generator=generator, dtype=torch.float64)).requires_grad_()
    tokens_GT = torch.randint(V, (G, T), generator=generator)
    return old, new, tokens_GT


def log_probs_of(logits_TV, tokens_GT):
    return logits_TV.log_softmax(-1)[torch.arange(T), tokens_GT]


def gradient(new, old, tokens_GT, advantages_G, method):
    """Of the objective: minus the loss."""
    mask = torch.ones(G, T, dtype=torch.bool)
    loss = policy_loss(
        log_probs_of(new, tokens_GT), log_probs_of(old, tokens_GT), advantages_G[:, None].expand(G, T), mask, method
    )
    return -torch.autograd.grad(loss.value, new)[0]


def reweighted_sum(new, old, tokens_GT, weights_G):
    """(1/G) sum_i w_i (1/T) sum_t rho_it grad log pi(y_it), the softmax's gradient written out: one-hot minus pi."""
    probs_TV = new.detach().softmax(-1)
    score_GTV = torch.nn.functional.one_hot(tokens_GT, V) - probs_TV
    rho_GT = (log_probs_of(new.detach(), tokens_GT) - log_probs_of(old, tokens_GT)).exp()
    return (weights_G[:, None, None] * rho_GT[..., None] * score_GTV).sum(0) / (G * T)


@pytest.mark.parametrize("name", METHODS)
def test_equation_8_reweights_the_log_prob_gradients(problem, name):
    old, new, tokens = problem
    method = get_method(name, entropy_coeff=0.0, **UNCLIPPED)
    advantages = group_advantages(REWARDS, ["x"] * G, method)
    torch.testing.assert_close(
        gradient(new, old, tokens, advantages, method), reweighted_sum(new, old, tokens, advantages), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("betas", [(0.5, 0.5), (0.9, 0.4), (0.0, 0.5)])
def test_equation_11_splits_into_right_and_wrong_rollouts(problem, betas):
    old, new, tokens = problem
    method = get_method("grpo", beta_pos=betas[0], beta_neg=betas[1], **UNCLIPPED)
    p, right = 2 / 8, REWARDS
    halves = [
        ((1 - p) / p) ** betas[0] * reweighted_sum(new, old, tokens, right),
        -((p / (1 - p)) ** betas[1]) * reweighted_sum(new, old, tokens, 1 - right),
    ]
    advantages = group_advantages(right, [0] * G, method)
    torch.testing.assert_close(gradient(new, old, tokens, advantages, method), halves[0] + halves[1], rtol=1e-9, atol=1e-12)


def test_each_beta_moves_its_own_half_only(problem):
    old, new, tokens = problem

    def halves(**betas):
        method = get_method("asymgrpo", **betas, **UNCLIPPED)
        advantages = group_advantages(REWARDS, [0] * G, method)
        return [gradient(new, old, tokens, advantages * side, method) for side in (REWARDS, 1 - REWARDS)]

    right, wrong = halves()
    more_right, same_wrong = halves(beta_pos=1.4)
    torch.testing.assert_close(same_wrong, wrong, rtol=0, atol=0)
    torch.testing.assert_close(more_right, right * 3**0.5, rtol=1e-9, atol=1e-12)  # ((1-p)/p)^0.5 more at p = 1/4


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("right", range(1, G))
def test_a_step_raises_right_and_lowers_wrong_answers(name, right):
    """A uniform policy over G answers, each sampled once: every right one must gain and every wrong one lose."""
    method = METHODS[name]
    rewards = (torch.arange(G) < right).double()
    logits = torch.zeros(1, G, dtype=torch.float64, requires_grad=True)
    advantages = group_advantages(rewards, [0] * G, method)
    log_probs = logits.log_softmax(-1)[0, torch.arange(G)][:, None]
    mask = torch.ones(G, 1, dtype=torch.bool)
    bonus_free = method.model_copy(update={"entropy_coeff": 0.0})
    policy_loss(log_probs, log_probs.detach(), advantages[:, None], mask, bonus_free).value.backward()
    change = (logits - 0.1 * logits.grad).softmax(-1)[0] - 1 / G
    if name == "pass_at_k" and right > 3:  # every subset of five holds a right one: nothing to learn
        assert change.abs().max() < 1e-15
    else:
        assert (change[rewards == 1] > 0).all() and (change[rewards == 0] < 0).all()
