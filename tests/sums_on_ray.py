"""A batch over a Ray cluster on this machine whose run is that of sums.py, and its death.

python tests/sums_on_ray.py FOLDER ADDRESS     the batch
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import nbformat
from sums import SPEC, differs

from asymlib.execution.batch import run_batch
from asymlib.runs.records import run_folder

HERE = Path(__file__).parent


def kill(dice: random.Random, results: Path) -> str | None:
    """SIGKILL, SIGTERM or SIGINT to the batch, at a random moment; then it is run again."""
    with _cluster() as address:
        command = [sys.executable, __file__, str(results), address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not run_folder(SPEC, results).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(dice.random() * 3)  # as long as it trains
        process.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.wait()
        again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return f"the batch fails when it is run again: {again.stderr[-100:]}" if again.returncode else differs(results)


@contextmanager
def _cluster() -> Iterator[str]:
    """The address of a cluster of two cores, whose asymlib is this one. Ray's sockets need a short path."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        with mock.patch.dict(os.environ, {"RAY_TMPDIR": folder, "PYTHONPATH": paths}):
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
            try:
                yield made.address
            finally:
                made.shutdown()


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
