from collections import deque

import torch

from asymlib.lab.tasks import to_text
from asymlib.lab.tasks import walk as task
from asymlib.lab.tasks.walk import EOS, FIRST_NUMBER, FIRST_OPERATION, MODULUS, OPERATIONS, RESPONSE_TOKENS


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(tokens):
    return [tuple(row) for row in tokens.tolist()]


def shortest_chain(menu, start, target):
    """Breadth-first search over numbers; None beyond six moves."""
    queue, seen = deque([(start, 0)]), {start}
    while queue:
        number, moves = queue.popleft()
        if number == target:
            return moves
        for a, b in (OPERATIONS[op] for op in menu):
            following = (a * number + b) % MODULUS
            if following not in seen and moves < task.MAX_MOVES:
                seen.add(following)
                queue.append((following, moves + 1))
    return None


def index_of(prompts):
    """Where prompts stand in the enumeration: (menu, start, target)."""
    menus = {tuple(m): i for i, m in enumerate(task.problems().menus.tolist())}
    return [
        (menus[tuple(op - FIRST_OPERATION for op in ops)] * MODULUS + start - FIRST_NUMBER) * MODULUS + target - FIRST_NUMBER
        for start, target, *ops, _ in prompts.tolist()
    ]


def test_distance_is_the_shortest_chain():
    problems = task.problems()
    assert len(problems.graded.grade) == 84 * MODULUS**2
    index = torch.randint(len(problems.graded.grade), (400,), generator=generator())
    prompts = task.prompt_tokens(index)
    assert index_of(prompts) == index.tolist()
    for i, (start, target, *menu, separator) in zip(index, prompts.tolist(), strict=True):
        expected = shortest_chain([op - FIRST_OPERATION for op in menu], start - FIRST_NUMBER, target - FIRST_NUMBER)
        assert problems.graded.grade[i] == (99 if expected is None else expected)
        assert separator == task.SEPARATOR


def plain_reward(prompt, response):
    start, target, *menu, _ = prompt
    if EOS not in response:
        return 0.0
    said = response[: response.index(EOS)]
    if not said or len(said) % 2:
        return 0.0
    number = start - FIRST_NUMBER
    for operation, written in zip(said[::2], said[1::2], strict=True):
        if operation not in menu:
            return 0.0
        a, b = OPERATIONS[operation - FIRST_OPERATION]
        number = (a * number + b) % MODULUS
        if written != number + FIRST_NUMBER:
            return 0.0
    return float(number == target - FIRST_NUMBER)


def test_reward_equals_a_plain_reading_of_right_mutated_and_random_responses():
    demos = task.demonstrations(3000, generator())
    prompts, right = demos.prompts, demos.responses
    where = torch.rand(right.shape, generator=generator(1)) < 0.06
    noise = torch.randint(len(task.VOCABULARY), right.shape, generator=generator(2))
    lengthened = torch.cat([right[:, 2:], right[:, :2]], 1)  # tokens after EOS, and walks that start in the middle
    for responses in (right, torch.where(where, noise, right), noise, lengthened, right.roll(1, 0)):
        expected = [plain_reward(p, r) for p, r in zip(prompts.tolist(), responses.tolist(), strict=True)]
        assert task.reward(prompts, responses).tolist() == expected


def test_reward_by_hand():
    def encode(text):
        return [task.VOCABULARY.index(word) for word in text.split()]

    prompt = encode("4 9 x+1 2x 3x :")
    cases = {
        "2x 8 x+1 9 <eos>": 1,
        "x+1 5 x+1 6 x+1 7 x+1 8 x+1 9 <eos>": 1,
        "2x 8 x+1 10 <eos>": 0,  # a wrong number
        "2x 8 x+7 15 <eos>": 0,  # not on the menu
        "x+1 5 <eos>": 0,  # not the target
        "2x 8 x+1 9": 0,  # padded below with an operation: does not stop at the target
        "2x 8 x+1 <eos>": 0,  # stops before the number
        "<eos>": 0,
    }
    for text, expected in cases.items():
        tokens = encode(text)
        filler = EOS if text.endswith("<eos>") else FIRST_OPERATION
        response = tokens + [filler] * (RESPONSE_TOKENS - len(tokens))
        assert task.reward(torch.tensor([prompt]), torch.tensor([response])).tolist() == [expected], text
        assert to_text(task, tokens) == text
    at_target = torch.tensor([encode("4 4 x+1 2x 3x :")])  # a target equal to the start still takes a move
    assert task.reward(at_target, torch.full((1, RESPONSE_TOKENS), EOS)).tolist() == [0]


def test_six_moves_fit_and_a_response_without_eos_is_wrong():
    walk = [token for n in range(1, 7) for token in (FIRST_OPERATION, FIRST_NUMBER + n)]  # x+1 six times from 0
    prompt = torch.tensor([[FIRST_NUMBER, FIRST_NUMBER + 6, 2, 3, 4, task.SEPARATOR]] * 2)
    assert task.reward(prompt, torch.tensor([[*walk, EOS], [*walk, FIRST_OPERATION]])).tolist() == [1, 0]


def test_prompts_are_split_once_for_all():
    problems, sets = task.problems(), task.benchmark_prompts()
    assert {name: len(prompts) for name, prompts in sets.items()} == {n: b.size for n, b in task.HELD_OUT.items()}
    held_out = [row for prompts in sets.values() for row in rows(prompts)]
    assert len(held_out) == len(set(held_out)) == 1300  # no prompt twice, within a set or across sets
    training = task.training_prompts(20_000, generator())
    assert not set(rows(training)) & set(held_out)
    assert not problems.graded.held_out[index_of(training)].any()
    assert 0.09 < problems.graded.held_out.float().mean() < 0.11
    for name, prompts in sets.items():
        index = index_of(prompts)
        assert problems.graded.held_out[index].all()
        distances = problems.graded.grade[index].bincount(minlength=7)
        wanted = task.HELD_OUT[name].grades
        assert {d for d in range(7) if distances[d]} == set(wanted)
        assert max(distances[list(wanted)]) - min(distances[list(wanted)]) <= 1
    shares = problems.graded.grade[index_of(training)].bincount(minlength=7)[1:5] / len(training)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_drawing_prompts_depends_on_the_generator_only():
    first, again, other = (task.training_prompts(64, generator(s)) for s in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_demonstrations_are_mostly_right_and_never_of_held_out_prompts():
    demos = task.demonstrations(5000, generator())
    assert demos.prompts.shape == (5000, 6) and demos.responses.shape == (5000, RESPONSE_TOKENS)
    assert 0.9 < task.reward(demos.prompts, demos.responses).mean() < 0.99
    assert not task.problems().graded.held_out[index_of(demos.prompts)].any()
    ends = torch.arange(RESPONSE_TOKENS) >= demos.lengths[:, None] - 1
    assert torch.equal(demos.responses == EOS, ends)  # one EOS as the last token, and padding after it
    clean = task.demonstrations(2000, generator(), lost=0.0, slip=0.0)
    assert task.reward(clean.prompts, clean.responses).all()
