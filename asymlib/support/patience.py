"""How long a part of a run may be silent: verl's training (verl/launch.py) and the engine of an evaluation."""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 1800  # seconds
GRACE = 60  # more of them, for Python code to end by itself


class SilenceError(RuntimeError):
    """Nothing came for longer than one is patient."""


@contextmanager
def within(seconds: int, silence: str) -> Iterator[None]:
    """Raise SilenceError in the block, "<silence> for <seconds> seconds", if it takes longer.

    An alarm does so, because it also interrupts a wait for another process, as Ctrl-C does. Code that no alarm reaches (a
    CUDA call that never returns, a thread that is not the main one) ends the whole process `GRACE` seconds later, with the
    stacks of all threads on standard error and status 1.
    """

    def give_up(*_) -> None:
        raise SilenceError(f"{silence} for {seconds} seconds")

    hears = threading.current_thread() is threading.main_thread()
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=sys.__stderr__)
    before = signal.signal(signal.SIGALRM, give_up) if hears else None
    try:
        if hears:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        if hears:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
