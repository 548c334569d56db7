"""The reward: boxes found in real kinds of text, limits that hold, fair waiting; `test_grading.py` has what counts as equal."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from asymlib.evaluation import reward
from asymlib.evaluation.reward import answer_boxes, boxes, compute_score


def score(answer: str, truth: str) -> float:
    return compute_score("math-500", f"Reasoning. The answer is $\\boxed{{{answer}}}$.", truth)


@pytest.fixture
def limits(monkeypatch):
    """limits(cpu, wall) sets the limits for checkers of this test's own."""

    def set_limits(cpu: float, wall: float) -> None:
        monkeypatch.setattr(reward, "CPU_LIMIT", cpu)
        monkeypatch.setattr(reward, "WALL_LIMIT", wall)

    reward._pool.close()
    reward._new_pool()
    yield set_limits
    reward._pool.close()
    reward._new_pool()


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{5}", "5"),
        (r"first \boxed{4}, then $\boxed{5}$.", "5"),
        (r"\boxed{\frac{1}{\sqrt{2}}} done }", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x : x > 0 \right.}", r"\left\{ x : x > 0 \right."),
        (r"\boxed{\boxed{7}}", "7"),
        (r"$\boxed 5$ is it", "5"),
        (r"\fbox{12}", "12"),
        (r"\boxed {8}", "8"),
        (r"\boxed{}", ""),
        (r"\boxed{4} no, \boxed{5", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_the_last_box_decides(text, box):
    assert next((content for _, _, content in boxes(text)), None) == box


@pytest.mark.parametrize(
    "response",
    [
        "the answer is 5",
        "",
        r"\boxed{}",
        r"\boxed{ }",
        r"\boxed{5",
        r"\boxed{5} or rather \boxed{6}",
        r"\boxed{\frac{5}{}",
        r"\boxed{\frac{5}{}}",
        r"\boxed{\frac}",
        r"\boxed{\begin{pmatrix}5}",
        r"\boxed{5^{}_{}^{}}",
        "\\boxed{\x00\ud800}",
        r"\boxed{" + "5" * (reward.ANSWER_CHARACTERS + 1) + "}",
        r"\boxed{" + "{" * 400 + "5" + "}" * 400 + "5}",
        "word " * 200_000 + r"\boxed{6}",
        r"\boxed{" * 100_000,
    ],
)
def test_no_box_broken_latex_and_long_texts_score_zero_at_once(response):
    started = time.perf_counter()
    assert compute_score("math-500", response, "5", extra_info={"num_turns": None}) == 0.0
    assert time.perf_counter() - started < reward.WALL_LIMIT


def test_many_boxes_before_the_last_one_are_read_quickly():
    assert compute_score("math-500", r"\boxed{1} " * 100_000 + r"\boxed{\frac{10}{2}}", "5") == 1.0


HOSTILE = ("9^{9^{9^9}}", "(10^7)!", "{" * 100 + "}" * 100, "(" * 900)


@pytest.mark.parametrize("answer", HOSTILE)
def test_a_hostile_answer_scores_zero_within_the_limits_and_the_next_one_is_right(limits, answer):
    limits(cpu=1.0, wall=8.0)
    assert score("2+3", "5") == 1.0  # a checker is there
    started = time.perf_counter()
    assert score(answer, "5") == 0.0
    assert time.perf_counter() - started < 8 + 2
    assert score("2+3", "5") == 1.0


@pytest.mark.parametrize(("cpu", "wall"), [(0.5, 1000), (1000, 0.5)])
def test_each_limit_holds_alone(limits, cpu, wall):
    limits(cpu, wall)
    assert score(HOSTILE[0], "5") == 0.0


def test_the_limits_hold_in_threads_while_other_answers_are_checked(limits):
    """As verl calls it: from threads of an executor, where signals cannot be handled."""
    limits(cpu=1.0, wall=20.0)
    answers = [(HOSTILE[0], 0.0), (r"\frac{10}{2}", 1.0), ("6", 0.0), ("3+2", 1.0)] * 2
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda answer: score(answer, "5"), [answer for answer, _ in answers]))
    assert scores == [expected for _, expected in answers]


@pytest.fixture
def served(limits, monkeypatch):
    """What the pool does: `came` and `began` (questions in order), `restarts` and `took` (seconds)."""
    log = {"came": [], "began": [], "restarts": [], "took": []}
    pool, came_first = reward._pool, threading.Lock()
    submit, ask, started = pool.threads.submit, pool._ask, pool._started

    def note_submit(function, question):
        with came_first:  # so that the log has the queue's order
            log["came"].append(question)
            return submit(function, question)

    def note_ask(question):
        log["began"].append(question)
        begun = time.monotonic()
        try:
            return ask(question)
        finally:
            log["took"].append(time.monotonic() - begun)

    def note_started():
        begun = time.monotonic()
        try:
            return started()
        finally:
            log["restarts"].append(time.monotonic() - begun)

    monkeypatch.setattr(pool.threads, "submit", note_submit)
    monkeypatch.setattr(pool, "_ask", note_ask)
    monkeypatch.setattr(pool, "_started", note_started)
    return log


def test_waiting_is_fair(limits, served):
    """Twice as many threads as checkers, every answer a hostile one: served in order, and each within limit and restart.

    So the k-th call waits for k // CHECKERS others at most. Restarts are measured, for they take long on a busy machine.
    """
    limit, margin, threads = 1.0, 2.0, 2 * reward.CHECKERS
    limits(cpu=1000, wall=limit)

    def call(number: int) -> float:
        begun = time.monotonic()
        assert score(f"9^{{9^{{9^{{{number}}}}}}}", "5") == 0.0
        return time.monotonic() - begun

    with ThreadPoolExecutor(threads) as callers:
        waits = list(callers.map(call, range(10, 10 + 2 * threads)))
    came, began, longest = served["came"], served["began"], limit + max(served["restarts"]) + margin
    assert len(came) == len(waits) and sorted(came) == sorted(began)
    assert all(abs(came.index(question) - place) < reward.CHECKERS for place, question in enumerate(began))
    assert max(served["took"]) < longest
    assert max(waits) < longest * threads / reward.CHECKERS


def test_an_equal_question_is_asked_once(limits, monkeypatch):
    asked = []
    monkeypatch.setattr(reward._Pool, "ask", lambda pool, answers, truth: asked.append((answers, truth)) or True)
    reward._graded.cache_clear()
    assert score("2+3", "5") == score("2+3", "5") == score("3+2", "5") == 1.0
    assert asked == [(("2+3",), "5"), (("3+2",), "5")]


def test_a_verdict_that_a_limit_prevented_is_not_remembered(limits):
    limits(cpu=1000, wall=0.5)
    assert score(HOSTILE[0], "5") == 0.0
    assert reward._graded.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"$\boxed{1}$ and $\boxed{9}$.", ("1", "9")),
        (r"$k = \boxed{1}$ or $k = \boxed{9}$", ("1", "9")),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", ("1", "2", "3")),
        (r"\boxed{1} \text{ and } \boxed{9}", ("1", "9")),
        (r"first \boxed{4}, then $\boxed{5}$.", ("5",)),
        (r"\boxed{\boxed{7}}", ("7",)),
        (r"\boxed{1} and \boxed{9", ()),
        (r"\(\boxed{1}\) and \(\boxed{9}\)", ("1", "9")),
        (r"\[\boxed{1}\] and \[\boxed{9}\]", ("1", "9")),
        (r"\boxed{1} \quad \text{and} \quad \boxed{9}", ("1", "9")),
        (r"\boxed{1}\ \text{and}\ \boxed{9}", ("1", "9")),
        (r"$\boxed{1}$ and also $\boxed{9}$", ("1", "9")),
        (r"$x_{1}=\boxed{1}$ and $x_{2}=\boxed{9}$", ("1", "9")),
        (r"$\angle A=\boxed{1}$, $\angle B = \boxed{9}$", ("1", "9")),
        (r"\boxed{4} or rather \boxed{9}", ("9",)),
        (r"\boxed{4}. The answer is $x = \boxed{9}$", ("9",)),
        (r"\(\boxed{4}\) \(\boxed{9}\)", ("9",)),
        (r"\boxed{4}" + r" \quad $" * 100_000 + r"then \boxed{9}", ("9",)),  # read in one pass
    ],
)
def test_boxes_of_one_list(text, found):
    assert answer_boxes(text) == found


def test_a_checker_killed_while_idle_is_replaced():
    assert score("2+3", "5") == 1.0
    for checker in reward._pool.checkers:
        checker.kill()
        checker.wait()
    assert score("3+2", "5") == 1.0


def test_a_forked_child_has_checkers_of_its_own():
    """A reply read by the other process would give both wrong scores."""
    assert score("2+3", "5") == 1.0
    inherited = reward._pool
    child = os.fork()
    if child == 0:
        os._exit(0 if reward._pool is not inherited and score("2+3", "5") == 1.0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert score("6", "5") == 0.0


def test_a_missing_math_verify_is_an_error_not_a_zero(monkeypatch):
    reward._pool.close()
    reward._new_pool()
    monkeypatch.setattr(reward.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="math-verify did not start"):
        score("2+3", "5")
    monkeypatch.undo()
    assert score("2+3", "5") == 1.0  # the failed start did not cost the pool a place


@pytest.mark.parametrize("path", ["pkg://asymlib.evaluation.reward", reward.__file__])
def test_verl_finds_it_by_name_and_by_path(path):
    load = pytest.importorskip("verl.utils.import_utils").load_extern_object
    found = load(module_path=path, object_name="compute_score")
    assert found(data_source="math-500", solution_str=r"\boxed{\frac{10}{2}}", ground_truth="5", extra_info={}) == 1.0
