"""Runs as a SLURM job on 1 to N nodes, or as an array of such jobs: an sbatch script from `slurm.sh.j2`."""

import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..runs.records import run_folder
from ..runs.spec import ExperimentSpec
from ..support.files import write_atomically
from .rehearse import project, read_measured, shortened
from .setting import ONE_NODE, Machine, least_cpus
from .target import target_of

CPUS_PER_GPU = 12
CARRIED = ("ASYMLIB_PATIENCE", "ASYMLIB_OVERRIDES")  # of the machine; its nodes and GPUs are options of the command
_OPTION = re.compile(r"--[a-z][a-z-]*(=[\w.,:%+@/-]+)?")


def render(
    specs: list[ExperimentSpec],
    results: Path,
    data: Path,
    machine: Machine = ONE_NODE,
    options: list[str] | None = None,
    name: str | None = None,
    at_once: int | None = None,
) -> str:
    """The script: a job for one spec; for more an array `name`, one job a spec and at most `at_once` of them at a time.

    `results`, `data` and this Python must lie where every node sees them. The time limit is twice the longest run's hours by
    its rehearsal on GPUs; without one the partition's, or what `options`, more lines for #SBATCH, say. Raises ValueError for an
    option that is not one, a name that is no file's, and a path of more than one line.
    """
    import jinja2

    for option in options or []:
        if not _OPTION.fullmatch(option):
            raise ValueError(f"--slurm-option {option!r}: must read --name or --name=value, such as --partition=gpu")
    for field, path in {"--results": results.resolve(), "data": data.resolve(), "python": Path(sys.executable)}.items():
        if not str(path).isprintable():
            raise ValueError(f"{field} {str(path)!r}: a path in a SLURM script must have printable characters only")
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"matrix {name!r}: a job's name must be of letters, digits, '_', '.' and '-'; rename the file")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    array = f"0-{len(specs) - 1}" + (f"%{at_once}" if at_once else "")
    return environment.get_template("slurm.sh.j2").render(
        name=f"asymlib-{name or specs[0].run_id}",
        array=array if len(specs) > 1 or name else None,
        specs=specs,
        results=results.resolve(),
        data=data.resolve(),
        python=sys.executable,
        machine=machine,
        cpus=CPUS_PER_GPU * machine.gpus_per_node,
        least_cpus=least_cpus(machine.gpus_per_node),
        hours=_hours(specs, results),
        variables=target_of(specs[0]).environment | {name: machine.environment[name] for name in CARRIED},
        options=options or [],
    )


def _hours(specs: list[ExperimentSpec], results: Path) -> int | None:
    """Twice the longest projection; None if a spec has no rehearsal on GPUs."""
    longest = 0.0
    for spec in specs:
        short = shortened(spec, on_cpu=False)
        measured = read_measured(run_folder(short, results / "rehearsal"))
        if measured is None:
            return None
        longest = max(longest, project(spec, short, measured, 0.0).hours)
    return math.ceil(2 * longest)


def submit(script: str, path: Path) -> str:
    """Leave the script at `path` and hand it to sbatch; returns what sbatch says.

    Raises ValueError in one sentence where there is no sbatch or the queue has a job of this name, before anything is written,
    and where sbatch refuses.
    """
    if not shutil.which("sbatch"):
        raise ValueError("--slurm: there is no sbatch on this machine; `asymlib verl launch --slurm` prints a run's script")
    name = re.search("^#SBATCH --job-name=(.*)$", script, re.MULTILINE)[1]
    if queued := _slurm("squeue", "--noheader", "--format=%A", "--me", f"--name={name}").split():
        raise ValueError(f"--slurm: {name} is in the queue, job {queued[0]}; let it end, or `scancel {queued[0]}`")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, script.encode())
    return _slurm("sbatch", str(path))


def _slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"--slurm: `{shlex.join(command)}`: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def without_client_server(ray_params: Any, head: bool) -> None:
    """A hook of `ray start` ($RAY_START_HOOK): the Ray client's server, which would listen on port 10001, is left out.

    No value of --ray-client-server-port does so in Ray 2.60: without one it is 10001, and 0 is refused.
    """
    ray_params.ray_client_server_port = None
