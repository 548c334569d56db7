"""A command in a process of its own, and a matrix of two runs for it."""

import subprocess
import sys
from pathlib import Path

MATRIX = """
defaults: {profile: quick, steps: 150, validation_every: 75, prompts_per_step: 8, prompts_per_minibatch: 4}
axes: {method: [grpo, asymgrpo]}
"""


def asymlib(*arguments, folder: Path, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "asymlib", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **kwargs)
