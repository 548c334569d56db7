"""The reward of a maths answer: 1.0 or 0.0 for the last boxed answer (grading.py says when), within a time limit that holds.

verl calls rewards in worker threads, where math-verify's own limit (a signal handler) does not work, and no handler interrupts
one long multiplication of integers. So answers are graded by checkers, processes of their own. A checker sets timers whose
signals it does not handle: the kernel ends it when an answer takes too long, the caller reads the end of its pipe, and the next
answer gets a new checker. A checker also ends with its caller, whose end of the pipe closes. Answers wait in the order in which
they came. Equal questions are asked once: the rollouts of a group often agree. This file is its own checker program and imports
nothing of asymlib, so verl may load it by name or by path.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

CPU_LIMIT = 5.0  # CPU seconds an answer may take, so that a busy machine turns no right answer into a zero
WALL_LIMIT = 30.0  # seconds by the clock, whatever the machine does
START_LIMIT = 120.0  # seconds a checker may take to import math-verify; one or two on an idle machine
MEMORY_LIMIT = 4 << 30  # bytes a checker may map
ANSWER_CHARACTERS = 1000  # a longer box is not an answer
CHECKERS = min(4, os.cpu_count() or 1)  # how many answers a process of verl checks at once

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_AND = r"(?:\\(?:text|mbox|textrm)\s*\{\s*,?\s*(?:and|or)(?: also)?\s*\}|\b(?:and|or)(?: also)?\b)"
_SPACE = r"(?:[\s$]|\\[()\[\],;: ]|\\q?quad(?![A-Za-z]))*+"
_NAME = r"(?:(?:\\angle\s*)?\\?[A-Za-z]\w{0,7}(?:\{\\?\w+\s*\})?\s*=)?"
_BETWEEN = re.compile(rf"{_SPACE}(?:[,;]|[,;]?{_SPACE}{_AND}){_SPACE}{_NAME}{_SPACE}")  # two boxes of one list


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **_: Any) -> float:
    """1.0 if the last boxed answer of `solution_str` equals `ground_truth`, else 0.0: verl's reward function.

    Where `ground_truth` is a list, boxes with only a comma, "and" or "or" between them are one answer. 0.0 also for no box, an
    unclosed or empty one, more than `ANSWER_CHARACTERS`, and an answer on which math-verify fails or takes longer than a limit.
    May be called from several threads. Raises RuntimeError if math-verify does not start: nobody must train on zeros for that.
    """
    answers, truth = answer_boxes(solution_str), str(ground_truth)
    if not answers or not answers[-1] or sum(map(len, answers)) > ANSWER_CHARACTERS:
        return 0.0
    try:
        return float(answers[-1] == truth or _graded(answers, truth))
    except TimeoutError:
        return 0.0


def boxes(text: str) -> Iterator[tuple[int, int, str]]:
    r"""Start, end and content of each \boxed{...} or \fbox{...} (of `\boxed 5$`: up to the dollar), the last one first.

    A box that is not closed ends the search, for the last box decides: a response that is cut off inside it has no answer.
    """
    for box in reversed(list(_BOX.finditer(text))):
        if not (content := _content(text, box.end())):
            return
        yield box.start(), content[0], content[1].strip()


def _content(text: str, start: int) -> tuple[int, str] | None:
    if not text.startswith("{", start):
        content = text[start:].split("$", 1)[0]
        return start + len(content), content
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):  # \{ and \} are printed braces
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end(), text[start + 1 : brace.start()]
    return None


def answer_boxes(text: str) -> tuple[str, ...]:
    """The last box and those before it that belong to the same list, first to last."""
    found: list[str] = []
    following, characters = 0, 0
    for start, end, content in boxes(text):
        if found and not (start < end <= following and _BETWEEN.fullmatch(text, end, following)):
            break
        found.append(content)
        following, characters = start, characters + len(content)
        if characters > ANSWER_CHARACTERS:
            break
    return tuple(reversed(found))


class _Pool:
    """`CHECKERS` threads with a checker each, started when first needed; who asks first is served first."""

    def __init__(self):
        self.threads = ThreadPoolExecutor(CHECKERS, "asymlib-checker")
        self.own = threading.local()
        self.checkers: set[subprocess.Popen] = set()

    def ask(self, answers: tuple[str, ...], truth: str) -> bool:
        """Whether they are equal. Raises TimeoutError where a limit ended the checker."""
        return self.threads.submit(self._ask, json.dumps([answers, truth]).encode() + b"\n").result()

    def _ask(self, question: bytes) -> bool:
        """A line to this thread's checker, which replies with one byte."""
        checker = getattr(self.own, "checker", None)
        if checker is None or checker.poll() is not None:  # none yet, or it ended: by a limit, or while it was idle
            checker = self.own.checker = self._started()
        try:
            checker.stdin.write(question)
            checker.stdin.flush()
            reply = checker.stdout.read(1)
        except BrokenPipeError:
            reply = b""
        if not reply:
            self._end(checker)
            raise TimeoutError("a limit ended the checker: no verdict, and nothing to remember")
        return reply == b"1"

    def _started(self) -> subprocess.Popen:
        command = [sys.executable, "-P", __file__, *map(str, (CPU_LIMIT, WALL_LIMIT, START_LIMIT))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        checker = subprocess.Popen(command, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.checkers.add(checker)
        if checker.stdout.read(1) != b"r":
            self._end(checker)
            raise RuntimeError(f"math-verify did not start: {' '.join(command)} ended with {checker.returncode}")
        return checker

    def _end(self, checker: subprocess.Popen) -> None:
        checker.kill()
        checker.communicate()
        self.checkers.discard(checker)

    def close(self) -> None:
        for checker in tuple(self.checkers):
            checker.kill()  # its thread reads the end of the pipe
        self.threads.shutdown(cancel_futures=True)
        for checker in tuple(self.checkers):
            self._end(checker)


_pool: _Pool


@lru_cache(20_000)
def _graded(answers: tuple[str, ...], truth: str) -> bool:
    return _pool.ask(answers, truth)


def _new_pool() -> None:
    """At the start, and in a forked child, whose inherited pipes belong to its parent."""
    global _pool
    _pool = _Pool()
    _graded.cache_clear()


def _check_lines(cpu_limit: float, wall_limit: float, start_limit: float) -> None:
    """The checker: reads [answers, truth] lines from standard input, writes 1 or 0."""
    import resource
    import runpy
    import signal

    def limit(cpu: float, wall: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu)
        signal.setitimer(signal.ITIMER_REAL, wall)

    for ending in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(ending, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller
    limit(cpu=0, wall=start_limit)  # 0: none
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    equal = runpy.run_path(str(Path(__file__).with_name("grading.py")))["equal"]
    equal(["x+1"], "1+x")  # builds the grammar's tables: 0.2 seconds
    limit(cpu=0, wall=0)
    os.write(1, b"r")
    for line in sys.stdin.buffer:
        answers, truth = json.loads(line)
        limit(cpu_limit, wall_limit)
        try:
            verdict = equal(answers, truth)
        except Exception:
            verdict = False
        limit(cpu=0, wall=0)
        os.write(1, b"1" if verdict else b"0")


if __name__ == "__main__":
    _check_lines(*map(float, sys.argv[1:]))
else:
    _new_pool()
    os.register_at_fork(after_in_child=_new_pool)
    atexit.register(lambda: _pool.close())
