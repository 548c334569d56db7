import math

import pytest
import torch
import torch.nn.functional as F

from asymlib.lab.policy import NORM_EPS, ROTARY_BASE, Policy, token_log_probs
from asymlib.lab.sampler import COMPACT_BELOW, sample
from asymlib.lab.tasks import walk as task
from asymlib.lab.tasks.walk import EOS, RESPONSE_TOKENS


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lively(name="small"):
    """A random policy far from uniform, so that a wrong position or mask shows, and apt to stop, so that rows are dropped."""
    policy = Policy(name, seed=1)
    with torch.no_grad():
        for weight in policy.parameters():
            weight *= 8
        policy.embedding.weight[EOS] *= 4
    return policy


@pytest.fixture(scope="module")
def policy():
    return lively()


def plain_logits(policy, tokens):
    """One sequence at a time, written out: layer norm, rotary pairs, masked softmax attention, SwiGLU. Returns (S, V)."""
    S, d = len(tokens), policy.shape.width
    heads, width = policy.shape.heads, d // policy.shape.heads
    norm = lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + NORM_EPS).sqrt()  # noqa: E731
    angle = torch.arange(S)[:, None] * ROTARY_BASE ** (-torch.arange(0, width, 2) / width)

    def rotate(x_SD):
        even, odd = x_SD[:, 0::2], x_SD[:, 1::2]
        turned = torch.stack([even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], -1)
        return turned.flatten(1)

    x = policy.embedding.weight[tokens]
    for block in policy.blocks:
        q, k, v = (norm(x) @ block.qkv.weight.T).split(d, -1)
        attended = []
        for h in range(heads):
            one = slice(h * width, (h + 1) * width)
            scores = rotate(q[:, one]) @ rotate(k[:, one]).T / math.sqrt(width)
            scores = scores.masked_fill(torch.ones(S, S).triu(1).bool(), -torch.inf)
            attended.append(scores.softmax(-1) @ v[:, one])
        x = x + torch.cat(attended, -1) @ block.out.weight.T
        gate, up = (norm(x) @ block.gate_up.weight.T).chunk(2, -1)
        x = x + (F.silu(gate) * up) @ block.down.weight.T
    return norm(x) @ policy.embedding.weight.T


@torch.no_grad()
def plain_log_probs(policy, prompt, response):
    """Log-probs and entropies of one response's tokens."""
    logits = plain_logits(policy, torch.cat([prompt, response[:-1]]))[len(prompt) - 1 :]
    distribution = torch.distributions.Categorical(logits=logits)
    return distribution.log_prob(response), distribution.entropy()


@pytest.mark.parametrize("name", ["small", "base"])
def test_packed_sampled_and_plain_log_probs_agree(name):
    policy = lively(name)
    prompts = task.training_prompts(6, generator())
    rollouts = sample(policy, prompts, 4, generator(1))
    assert 0.2 < (rollouts.lengths > 4).float().mean() < COMPACT_BELOW  # finished rows were dropped and others went on
    with torch.no_grad():
        groups = rollouts.prompt_of_rollout
        packed, entropy = token_log_probs(policy, prompts, rollouts.tokens, rollouts.lengths, groups, with_entropy=True)
    for row, length in enumerate(rollouts.lengths):
        log_probs, entropies = plain_log_probs(policy, prompts[row // 4], rollouts.tokens[row, :length])
        padding = torch.zeros(RESPONSE_TOKENS - length)
        for mine in (packed, rollouts.log_probs):
            torch.testing.assert_close(mine[row], torch.cat([log_probs, padding]), atol=1e-5, rtol=1e-5)
        for mine in (entropy, rollouts.entropy):
            torch.testing.assert_close(mine[row], torch.cat([entropies, padding]), atol=1e-5, rtol=1e-5)


def test_groups_of_unequal_size_share_their_prompt(policy):
    """The log-prob increment is taken over the right rollouts only: some of each group."""
    rollouts = sample(policy, task.training_prompts(4, generator()), 4, generator(1))
    kept = torch.tensor([0, 5, 6, 7, 12, 15])  # of the prompts 0, 1, 1, 1, 3, 3
    some, groups = rollouts.prompt_of_rollout[kept].unique_consecutive(return_inverse=True)
    with torch.no_grad():
        log_probs, _ = token_log_probs(policy, rollouts.prompts[some], rollouts.tokens[kept], rollouts.lengths[kept], groups)
    torch.testing.assert_close(log_probs, rollouts.log_probs[kept], atol=1e-5, rtol=1e-5)


def test_gradients_of_packed_and_plain_log_probs_agree(policy):
    prompts = task.training_prompts(2, generator())
    rollouts = sample(policy, prompts, 3, generator(1))
    tokens, lengths = rollouts.tokens.clone(), rollouts.lengths.clone()  # autograd refuses tensors of inference mode
    log_probs, _ = token_log_probs(policy, prompts, tokens, lengths, rollouts.prompt_of_rollout)
    packed = torch.autograd.grad(log_probs.sum(), policy.parameters())
    total = 0.0
    for row, length in enumerate(lengths):
        response = tokens[row, :length]
        logits = plain_logits(policy, torch.cat([prompts[row // 3], response[:-1]]))[5:]
        total = total + logits.log_softmax(-1).gather(1, response[:, None]).sum()
    for mine, plain in zip(packed, torch.autograd.grad(total, policy.parameters()), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-3 * plain.abs().max().item(), rtol=1e-3)


def test_a_response_of_one_token_packs(policy):
    prompts = task.training_prompts(2, generator())
    responses = torch.full((4, RESPONSE_TOKENS), EOS)
    log_probs, _ = token_log_probs(policy, prompts, responses, torch.ones(4, dtype=torch.long), torch.tensor([0, 0, 1, 1]))
    for row in range(4):
        expected, _ = plain_log_probs(policy, prompts[row // 2], responses[row, :1])
        torch.testing.assert_close(log_probs[row], F.pad(expected, (0, RESPONSE_TOKENS - 1)), atol=1e-5, rtol=1e-5)


def test_rollouts_have_a_token_at_least_and_nothing_after_eos(policy):
    rollouts = sample(policy, task.training_prompts(50, generator()), 8, generator(2))
    assert rollouts.lengths.min() >= 1 and rollouts.lengths.max() <= RESPONSE_TOKENS
    stops = rollouts.tokens == EOS
    expected = torch.where(stops.any(1), stops.int().argmax(1) + 1, RESPONSE_TOKENS)
    assert torch.equal(rollouts.lengths, expected)
    past = ~rollouts.mask
    assert (rollouts.tokens[past] == EOS).all() and not rollouts.log_probs[past].any() and not rollouts.entropy[past].any()
    assert torch.equal(rollouts.prompt_of_rollout, torch.arange(50).repeat_interleave(8))


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_frequencies_are_those_of_the_tempered_softmax(policy, temperature):
    n, prompts = 5_000, task.training_prompts(1, generator())
    rollouts = sample(policy, prompts, n, generator(3), temperature)
    with torch.no_grad():
        probs = (plain_logits(policy, prompts[0])[-1] / temperature).softmax(-1)
    frequency = rollouts.tokens[:, 0].bincount(minlength=len(probs)) / n
    assert ((frequency - probs).abs() <= 5 * (probs * (1 - probs) / n).sqrt() + 1 / n).all()
    torch.testing.assert_close(rollouts.log_probs[:, 0], probs.log()[rollouts.tokens[:, 0]], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_temperature_zero_is_greedy(policy):
    prompts = task.training_prompts(5, generator())
    rollouts = sample(policy, prompts, 2, generator(), temperature=0.0)
    for row, length in enumerate(rollouts.lengths):
        response = rollouts.tokens[row, :length]
        logits = plain_logits(policy, torch.cat([prompts[row // 2], response[:-1]]))[5:]
        assert torch.equal(logits.argmax(-1), response)
    assert torch.equal(rollouts.tokens[::2], rollouts.tokens[1::2])


def test_sampling_depends_on_the_generator_only(policy):
    prompts = task.training_prompts(8, generator())
    first, again, other = (sample(policy, prompts, 4, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first.tokens, again.tokens) and not torch.equal(first.tokens, other.tokens)


def test_weights_come_from_the_seed():
    first, again, other = Policy("small", 3), Policy("small", 3), Policy("small", 4)
    assert torch.equal(first.embedding.weight, again.embedding.weight)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
