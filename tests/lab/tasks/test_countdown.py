"""Countdown against a plain reading of its rules: what is in reach, what is right, what is held out."""

from itertools import combinations, permutations

import pytest
import torch

from asymlib.lab.tasks import EOS, countdown, to_text
from asymlib.lab.tasks.countdown import LARGEST, RESPONSE_TOKENS, VOCABULARY

PROMPT = "14 from 2 3 5 8 :"
COMPUTE = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "x": lambda a, b: a * b}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def encode(text):
    return [VOCABULARY.index(word) for word in text.split()]


def padded(text):
    tokens = encode(text)
    return torch.tensor([tokens + [EOS] * (RESPONSE_TOKENS - len(tokens))])


def plain_reward(prompt, response):
    target, _, *left, _ = to_text(countdown, prompt).split()
    words = to_text(countdown, response).split()
    if "<eos>" not in words:
        return 0.0
    words, last = words[: words.index("<eos>")], None
    if len(words) % 5:
        return 0.0
    for a, operation, b, equals, last in zip(*(words[i::5] for i in range(5)), strict=True):
        if operation not in COMPUTE or equals != "=":
            return 0.0
        for operand in (a, b):
            if operand not in left:
                return 0.0
            left.remove(operand)
        if str(COMPUTE[operation](int(a), int(b))) != last:
            return 0.0
        left.append(last)
    return float(last == target)


def fewest_numbers(given, target):
    """By exhaustive search over pools of numbers; None where the target is out of reach."""
    pools, found = {tuple(given)}, None
    for used in range(2, len(given) + 1):
        following = set()
        for pool in pools:
            for i, j in permutations(range(len(pool)), 2):
                left = [pool[k] for k in range(len(pool)) if k not in (i, j)]
                results = (compute(pool[i], pool[j]) for compute in COMPUTE.values())
                following |= {(*sorted([*left, r]), r) for r in results if 0 <= r <= LARGEST}
        if any(pool[-1] == target for pool in following):
            return used
        pools = {pool[:-1] for pool in following}
    return found


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("3 x 2 = 6 6 + 8 = 14 <eos>", 1),
        ("8 + 3 = 11 5 - 2 = 3 11 + 3 = 14 <eos>", 1),
        ("2 x 5 = 10 8 + 3 = 11 <eos>", 0),  # not the target
        ("3 x 2 = 6 8 + 6 = 14", 1),  # padded with EOS below, so it ends
        ("3 x 2 = 5 5 + 8 = 13 <eos>", 0),  # a wrong result
        ("8 + 8 = 16 16 - 2 = 14 <eos>", 0),  # a number twice
        ("3 x 2 = 6 3 x 2 = 6 6 + 8 = 14 <eos>", 0),
        ("3 x 2 = 6 6 + 8 = 14 5 - 5 = 0 <eos>", 0),
        ("9 + 5 = 14 <eos>", 0),  # 9 is not given
        ("3 x 2 = 6 8 + 6 14 = <eos>", 0),
        ("2 - 3 = x <eos>", 0),  # no number: x stands where -1 would in the vocabulary
        ("<eos>", 0),
    ],
)
def test_reward_by_hand(response, right):
    prompt = encode(PROMPT)
    assert countdown.reward(torch.tensor([prompt]), padded(response)).tolist() == [right]
    assert plain_reward(prompt, padded(response)[0].tolist()) == right


def test_three_steps_fit_and_a_response_without_eos_is_wrong():
    steps = encode("8 + 3 = 11 5 - 2 = 3 11 + 3 = 14")
    responses = torch.tensor([[*steps, EOS], [*steps, steps[0]]])
    assert countdown.reward(torch.tensor([encode(PROMPT)] * 2), responses).tolist() == [1, 0]


def test_a_target_among_the_given_numbers_takes_a_step():
    prompt = torch.tensor([encode("8 from 2 3 5 8 :")])
    assert countdown.reward(prompt, padded("<eos>")).tolist() == [0]
    assert countdown.reward(prompt, padded("3 + 5 = 8 <eos>")).tolist() == [1]


def test_reward_equals_a_plain_reading_of_right_mutated_and_random_responses():
    demos = countdown.demonstrations(1000, generator())
    where = torch.rand(demos.responses.shape, generator=generator(1)) < 0.05
    noise = torch.randint(len(VOCABULARY), demos.responses.shape, generator=generator(2))
    shifted = torch.cat([demos.responses[:, 5:], demos.responses[:, :5]], 1)
    for responses in (demos.responses, torch.where(where, noise, demos.responses), noise, shifted, demos.responses.roll(1, 0)):
        expected = [plain_reward(p, r) for p, r in zip(demos.prompts, responses, strict=True)]
        assert countdown.reward(demos.prompts, responses).tolist() == expected


def test_the_grade_is_how_many_numbers_a_solution_needs():
    problems = countdown.problems()
    assert len(problems.graded.grade) == len(list(combinations(range(countdown.LARGEST_GIVEN), 4))) * (LARGEST + 1)
    index = torch.randint(len(problems.graded.grade), (60,), generator=generator())
    for i, prompt in zip(index, countdown.prompt_tokens(index), strict=True):
        target, _, *given, _ = to_text(countdown, prompt).split()
        expected = fewest_numbers([int(number) for number in given], int(target))
        assert problems.graded.grade[i] == (expected or 99)


def test_sets_are_held_out_and_of_their_grades():
    sets = countdown.benchmark_prompts()
    everything, grades = countdown.prompt_tokens(torch.arange(54_600)).tolist(), countdown.problems().graded.grade.tolist()
    grade_of = {tuple(prompt): grade for prompt, grade in zip(everything, grades, strict=True)}
    rows = [tuple(prompt) for prompts in sets.values() for prompt in prompts.tolist()]
    assert len(rows) == len(set(rows)) == sum(b.size for b in countdown.HELD_OUT.values())
    training = countdown.training_prompts(5000, generator())
    demos = countdown.demonstrations(5000, generator()).prompts
    assert not set(rows) & {tuple(row) for row in torch.cat([training, demos]).tolist()}
    for name, prompts in sets.items():
        grades = [grade_of[tuple(prompt)] for prompt in prompts.tolist()]
        assert set(grades) == set(countdown.HELD_OUT[name].grades)
    shares = torch.tensor([grade_of[tuple(row)] for row in training.tolist()]).bincount(minlength=5) / len(training)
    torch.testing.assert_close(shares, torch.tensor([0, 0, 0.5, 0.5, 0]), atol=0.03, rtol=0)


def test_demonstrations_are_mostly_right():
    demos = countdown.demonstrations(3000, generator())
    assert 0.9 < countdown.reward(demos.prompts, demos.responses).mean() < 0.98
    clean = countdown.demonstrations(1000, generator(), lost=0.0, slip=0.0)
    assert countdown.reward(clean.prompts, clean.responses).all()
    assert torch.equal(demos.responses == EOS, torch.arange(RESPONSE_TOKENS) >= demos.lengths[:, None] - 1)
    assert set(((demos.lengths - 1) // 5 + 1).tolist()) == {2, 3, 4}
