"""The reward of a maths answer: math-verify on the last boxed answer, 1.0 or 0.0, within a time limit that holds.

verl calls rewards in worker threads, where math-verify's own limit (a signal handler) does not work, and no handler interrupts
one long multiplication of integers. So math-verify runs in checkers, processes of their own. A checker sets timers whose
signals it does not handle: the kernel ends it when an answer takes too long, the caller reads the end of its pipe, and the next
answer gets a new checker. A checker also ends with its caller, whose end of the pipe closes.

This file is its own checker program and imports nothing of asymlib, so verl may load it by name or by path.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import re
import subprocess
import sys
from typing import Any

CPU_LIMIT = 5.0  # CPU seconds an answer may take, so that a busy machine turns no right answer into a zero; most take 0.05
WALL_LIMIT = 30.0  # seconds by the clock, whatever the machine does
START_LIMIT = 120.0  # seconds a checker may take to import math-verify; one or two on an idle machine
MEMORY_LIMIT = 4 << 30  # bytes a checker may map
ANSWER_CHARACTERS = 1000  # a longer box is not an answer
CHECKERS = min(4, os.cpu_count() or 1)  # how many answers a process of verl checks at once

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **_: Any) -> float:
    """1.0 if the last boxed answer of `solution_str` equals `ground_truth` by math-verify, else 0.0: verl's reward function.

    0.0 also for no box, an unclosed or empty one, more than `ANSWER_CHARACTERS` in it, and an answer on which math-verify
    fails or takes longer than a limit. May be called from any thread and from several at once. Raises RuntimeError if
    math-verify cannot be started at all: a broken installation must not train on zeros.
    """
    answer = last_boxed(solution_str)
    if not answer or len(answer) > ANSWER_CHARACTERS:
        return 0.0
    answer, truth = _plain(answer), _plain(str(ground_truth))
    return float(answer == truth or _ask_checker(answer, truth))


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...}, braces balanced; of `\boxed 5$` what stands before the dollar.

    None without a box or with an unclosed one: the last box decides, and a response cut off inside it has no answer.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):
        return rest.split("$", 1)[0].strip()
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # \{ and \} are printed braces
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return rest[1 : brace.start()].strip()
    return None


def _plain(answer: str) -> str:
    """White space collapsed, dollars dropped, and at the end percent signs, punctuation and spaces, as MATH's own grader does.

    math-verify reads `50\\%` in a box as text, so without this 50% would differ from 50.
    """
    return re.sub(r"(?<!\\)\$", "", " ".join(answer.split())).strip().rstrip(" \\%.,;$")


class _Checker:
    """One process that runs math-verify on answers sent to it, one line each; it replies with one byte."""

    def __init__(self):
        command = [sys.executable, "-P", __file__, *map(str, (CPU_LIMIT, WALL_LIMIT, START_LIMIT))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, **pipes, env=environment)
        if self.process.stdout.read(1) != b"r":
            self.close()
            raise RuntimeError(f"math-verify did not start: {' '.join(command)} ended with {self.process.returncode}")

    def ask(self, answer: str, truth: str) -> bool | None:
        """Whether the two are equal; None if the checker is gone."""
        try:
            self.process.stdin.write(json.dumps([answer, truth]).encode() + b"\n")
            self.process.stdin.flush()
            reply = self.process.stdout.read(1)
        except BrokenPipeError:
            return None
        return reply == b"1" if reply else None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


_idle: queue.LifoQueue[_Checker | None]


def _ask_checker(answer: str, truth: str) -> bool:
    checker = _idle.get()  # waits while all are busy; the one used last comes first
    try:
        if checker is not None and checker.process.poll() is not None:  # it ended while it was idle
            checker.close()
            checker = None
        checker = checker or _Checker()
        equal = checker.ask(answer, truth)
        if equal is None:
            checker.close()
            checker = None
        return bool(equal)
    except BaseException:  # an interrupted caller must not leave a reply for the next one
        if checker is not None:
            checker.close()
        checker = None
        raise
    finally:
        _idle.put(checker)


def _forget_checkers() -> None:
    """At the start, and in a forked child, whose inherited pipes belong to its parent."""
    global _idle
    _idle = queue.LifoQueue()
    for _ in range(CHECKERS):
        _idle.put(None)


def _close_checkers() -> None:
    while not _idle.empty():
        if checker := _idle.get():
            checker.close()


def _check_lines(cpu_limit: float, wall_limit: float, start_limit: float) -> None:
    """The checker: reads [answer, truth] lines from standard input, writes 1 or 0."""
    import resource
    import signal

    def limit(cpu: float, wall: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu)
        signal.setitimer(signal.ITIMER_REAL, wall)

    for ending in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(ending, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller
    limit(cpu=0, wall=start_limit)  # 0: none
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    from math_verify import LatexExtractionConfig, parse, verify

    def parsed(text: str) -> list:
        # As LaTeX only: math-verify's plain expressions go through sympy's parse_expr, which evaluates Python.
        return parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None)

    verify(parsed("x+1"), parsed("1+x"), timeout_seconds=None)  # builds the grammar's tables: 0.2 seconds
    limit(cpu=0, wall=0)
    os.write(1, b"r")
    for line in sys.stdin.buffer:
        answer, truth = json.loads(line)
        limit(cpu_limit, wall_limit)
        try:
            equal = verify(parsed(truth), parsed(answer), timeout_seconds=None)
        except Exception:
            equal = False
        limit(cpu=0, wall=0)
        os.write(1, b"1" if equal else b"0")


if __name__ == "__main__":
    _check_lines(*map(float, sys.argv[1:]))
else:
    _forget_checkers()
    os.register_at_fork(after_in_child=_forget_checkers)
    atexit.register(_close_checkers)
