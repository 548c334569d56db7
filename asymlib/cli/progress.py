"""Progress of long work with the time left, and its last words when it is interrupted."""

import shlex
import sys
import time
from datetime import timedelta
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..support.messages import printable


class _Console(Console):
    """One that prints neither markup nor control characters: what we print is not ours alone, but paths and errors too."""

    def __init__(self):
        super().__init__(markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how)


console = _Console()


class Pace:
    """The time left, from the mean pace since the first call of `reached`, or since the last of what was there before."""

    def __init__(self, total: int):
        self.total, self.first, self.end = total, None, None

    def reached(self, completed: int, was_there: bool = False) -> None:
        now = time.monotonic()
        if self.first is None or was_there:
            self.first = (now, completed)
        done_here = completed - self.first[1]
        if done_here:
            self.end = now + (now - self.first[0]) / done_here * (self.total - completed)

    def __str__(self) -> str:
        return "" if self.end is None else f"{clock(max(0, self.end - time.monotonic()))} left"


class Bar(Progress):
    """A progress bar with a `Pace`; rich's own time left forgets all that is older than 30 seconds, and runs take longer."""

    def __init__(self, console: Console, what: str, total: int, values: str = ""):
        description, now = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[values]}"))
        columns = (description, BarColumn(), MofNCompleteColumn(), now)
        super().__init__(*columns, TimeElapsedColumn(), TextColumn("{task.fields[pace]}"), console=console)
        self.pace = Pace(total)
        self.task = self.add_task(printable(what), total=total, values=values, pace=self.pace)

    def reached(self, completed: int, values: str = "", was_there: bool = False) -> None:
        self.pace.reached(completed, was_there)
        self.update(self.task, completed=completed, values=values)


def clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def stop(what: str) -> NoReturn:
    """The last words of an interrupted command."""
    console.print(f"{what}\nto go on: {shlex.join(['asymlib', *sys.argv[1:]])}", soft_wrap=True)
    raise typer.Exit(130)
