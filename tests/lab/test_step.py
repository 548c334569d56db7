"""A step computes what its gradient needs, and no more."""

import copy

import pytest
import torch

from asymlib import group_advantages, make_spec
from asymlib.lab import step
from asymlib.lab.optimizer import AdamW
from asymlib.lab.policy import Policy, token_log_probs
from asymlib.lab.sampler import sample
from asymlib.lab.tasks import walk as task


def all_log_probs(policy, rollouts, is_needed, with_entropy=False):
    prompts, tokens, lengths, _, _ = rollouts
    return step.token_log_probs(policy, prompts, tokens, lengths, rollouts.prompt_of_rollout, with_entropy=with_entropy)


@pytest.mark.parametrize("method", ["grpo", "asymgrpo", "grpo_entropy_adv", "grpo_entropy_reg", "dr_grpo", "reinforce"])
@pytest.mark.parametrize("mixed", [0, 3])
def test_leaving_out_rollouts_without_advantage_changes_no_update(method, mixed, monkeypatch):
    """Six groups in two mini-batches, of which `mixed` hold right and wrong answers and the others one kind."""
    spec = make_spec(method=method, prompts_per_step=6, prompts_per_minibatch=3, group_size=4)
    policy, generator = Policy("small", seed=1), torch.Generator().manual_seed(0)
    rollouts = sample(policy, task.training_prompts(6, generator), 4, generator)
    rewards = torch.zeros(6, 4)
    rewards[:mixed, :2] = rewards[5] = 1.0
    advantages = group_advantages(rewards.flatten(), rollouts.prompt_of_rollout, spec.resolved_method)

    def update():
        own, computed = copy.deepcopy(policy), []

        def counting(policy, prompts, tokens, *rest, **named):
            computed.append(len(tokens))
            return token_log_probs(policy, prompts, tokens, *rest, **named)

        monkeypatch.setattr(step, "token_log_probs", counting)
        draws = torch.Generator().manual_seed(2)
        measured = step.update(spec, own, AdamW(own), 1e-3, rollouts, advantages, draws)
        return own, measured, sum(computed)

    lean, lean_measured, computed = update()
    monkeypatch.setattr(step, "_new_log_probs", all_log_probs)
    whole, whole_measured, all_ = update()
    assert all_ == 24 and (computed < 24) == (mixed > 0 and method not in ("reinforce", "grpo_entropy_reg"))
    for a, b in zip(lean.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(lean_measured, whole_measured, rtol=1e-4, atol=1e-6)
