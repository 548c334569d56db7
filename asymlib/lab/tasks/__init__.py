"""The lab's tasks by the name that a spec gives them: a module each, with the names of `Task` (`task.py`).

A task knows prompts, responses and rewards; it knows no policy and no method. docs/add-a-task.md adds one.
"""

from types import ModuleType

from . import countdown, walk
from .task import EOS, Task, to_text

TASKS: dict[str, Task | ModuleType] = {"walk": walk, "countdown": countdown}

__all__ = ["EOS", "TASKS", "Task", "to_text"]
