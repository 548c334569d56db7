"""A batch over a Ray cluster on this machine whose run is that of sums.py, and its death.

python tests/sums_on_ray.py FOLDER ADDRESS     the batch
"""

import atexit
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import nbformat
from sums import SPEC, differs

from asymlib.execution.batch import run_batch
from asymlib.runs.records import run_folder

HERE = Path(__file__).parent


def kill(dice: random.Random, results: Path) -> str | None:
    """SIGKILL, SIGTERM or SIGINT to the batch, at a random moment; then it is run again."""
    command, environment = [sys.executable, __file__, str(results), _cluster()], os.environ | _paths()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not run_folder(SPEC, results).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(dice.random() * 3)  # as long as it trains
    process.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    process.wait()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return f"the batch fails when it is run again: {again.stderr[-100:]}" if again.returncode else differs(results)


@cache
def _cluster() -> str:
    """The address of a cluster of two cores that lives as long as this process. Ray's sockets need a short path."""
    from ray.cluster_utils import Cluster

    folder = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
    os.environ.update({"RAY_TMPDIR": folder.name} | _paths())
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    atexit.register(folder.cleanup)
    atexit.register(made.shutdown)
    return made.address


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}  # the nodes' asymlib is this one


def main(results: Path, address: str) -> str | None:
    """What failed."""
    cells = ["results = None", "from pathlib import Path\n\nimport sums\n\nsums.run_slowly(Path(results), pause=0.3)"]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    notebook.cells[0].metadata.tags = ["parameters"]
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(notebook, path := Path(folder) / "train.ipynb")
        failures = run_batch([SPEC], path, results, ray_address=address)
    return str(failures) if failures else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
