"""A run as a SLURM job on 1 to N nodes: an sbatch script from `slurm.sh.j2`."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ..runs.spec import ExperimentSpec
from ..support.files import write_atomically
from . import cost
from .setting import ONE_NODE, Machine

CPUS_PER_GPU = 12
_OPTION = re.compile(r"--[a-z][a-z-]*(=[\w.,:%+@/-]+)?")


def render(
    spec: ExperimentSpec, results: Path, data: Path, machine: Machine = ONE_NODE, options: list[str] | None = None
) -> str:
    """The script. `results`, `data` and this Python must lie where every node sees them.

    The time limit is twice our estimate unless `options`, more lines for #SBATCH such as "--partition=gpu", say otherwise.
    Raises ValueError for an option that is not one.
    """
    import jinja2

    for option in options or []:
        if not _OPTION.fullmatch(option):
            raise ValueError(f"--slurm-option {option!r}: must read --name or --name=value, such as --partition=gpu")
    hours = 2 * cost.estimate(spec, cost.assumptions(spec.policy), machine.nodes * machine.gpus_per_node).hours
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment.get_template("slurm.sh.j2").render(
        spec=spec,
        results=results.resolve(),
        data=data.resolve(),
        python=sys.executable,
        machine=machine,
        cpus=CPUS_PER_GPU * machine.gpus_per_node,
        time_limit=f"{max(1, math.ceil(hours))}:00:00",
        options=options or [],
    )


def submit(script: str, folder: Path) -> str:
    """Leave the script in the record as `slurm.sh` and hand it to sbatch; returns what sbatch says.

    Raises ValueError in one sentence where there is no sbatch, before anything is written, and where it refuses.
    """
    if not shutil.which("sbatch"):
        raise ValueError("--submit: there is no sbatch on this machine; without --submit the script is printed")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "slurm.sh"
    write_atomically(path, script.encode())
    done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"--submit: sbatch refused {path}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
