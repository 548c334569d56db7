"""What rollouts begin with alike stands once, and every row sees its own beginning, nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from asymlib.lab.packing import pack
from asymlib.lab.policy import Policy, token_log_probs
from asymlib.lab.tasks.walk import EOS, PROMPT_TOKENS, RESPONSE_TOKENS

A, B, C = 3, 4, 5


def padded(responses):
    tokens = torch.full((len(responses), RESPONSE_TOKENS), EOS)
    for row, response in enumerate(responses):
        tokens[row, : len(response)] = torch.tensor(response)
    return tokens, torch.tensor([len(response) for response in responses])


def beginnings(responses, prompts, length):
    """Of every input position of every rollout: its prompt and what stands there and before."""
    return [
        [(prompt, *range(p + 1)) for p in range(length)]
        + [(prompt, *range(length), *response[: t + 1]) for t in range(len(response) - 1)]
        for response, prompt in zip(responses, prompts, strict=True)
    ]


def test_rows_of_a_group_by_hand():
    tokens, lengths = padded([[A, B, C, EOS], [A, B, A, EOS], [B, EOS], [A, B, C, EOS], [EOS]])
    packed = pack(2, tokens[:, : lengths.max()], lengths, torch.tensor([0, 0, 0, 0, 1]))
    assert len(packed.slots) == 2 * 2 + 5  # two prompts of two tokens; A, AB, ABC, ABA, B
    assert torch.equal(packed.rows[0], packed.rows[3]) and torch.equal(packed.rows[0, :4], packed.rows[1, :4])
    assert packed.rows[4].unique().numel() == 2 and not set(packed.rows[4].tolist()) & set(packed.rows[:4].flatten().tolist())
    assert packed.mask.shape == (2, 1, 7, 7)


groups = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.sampled_from([A, B, C]), max_size=RESPONSE_TOKENS - 1)), min_size=1, max_size=12
)


@given(groups, st.integers(1, 4))
def test_each_beginning_stands_once_and_sees_what_it_consists_of(drawn, length):
    drawn = sorted(drawn, key=lambda pair: pair[0])
    prompts = torch.tensor([prompt for prompt, _ in drawn]).unique(return_inverse=True)[1]
    responses = [[*tokens, EOS] for _, tokens in drawn]
    tokens, lengths = padded(responses)
    packed = pack(length, tokens[:, : lengths.max()], lengths, prompts)
    expected = beginnings(responses, prompts.tolist(), length)
    row_of = {}
    for rows, of_rollout in zip(packed.rows.tolist(), expected, strict=True):
        for row, beginning in zip(rows, of_rollout, strict=False):
            assert row_of.setdefault(beginning, row) == row
    assert sorted(row_of.values()) == list(range(len(packed.slots)))
    most = packed.mask.shape[-1]
    for beginning, row in row_of.items():
        tree, within = divmod(int(packed.places[row]), most)
        seen = (packed.mask[tree, 0, within] == 0).nonzero().flatten() + tree * most
        assert set(packed.padded[seen].tolist()) == {row_of[beginning[: n + 1]] for n in range(1, len(beginning))}
        position = int(packed.slots[row]) % packed.rows.shape[1]
        assert position == len(beginning) - 2


def test_rollouts_that_begin_alike_have_the_log_probs_of_each_alone():
    policy = Policy("small", seed=1)
    responses = [[A, B, C, EOS], [A, B, C, EOS], [A, B, EOS], [A, C, A, B, EOS], [EOS]]
    tokens, lengths = padded(responses)
    prompt = torch.arange(PROMPT_TOKENS).unsqueeze(0)
    together, entropy = token_log_probs(policy, prompt, tokens, lengths, torch.zeros(5, dtype=torch.long), with_entropy=True)
    gradients = torch.autograd.grad(together.sum(), policy.parameters())
    total = 0.0
    for row in range(5):
        one = slice(row, row + 1)
        alone, its_entropy = token_log_probs(
            policy, prompt, tokens[one], lengths[one], torch.zeros(1, dtype=torch.long), with_entropy=True
        )
        torch.testing.assert_close(together[one], alone)
        torch.testing.assert_close(entropy[one], its_entropy)
        total = total + alone.sum()
    for mine, expected in zip(gradients, torch.autograd.grad(total, policy.parameters()), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
