"""A stand-in for the lab, whose steps are sums: so a run takes milliseconds; records, locks and files are the real ones.

python tests/sums.py FOLDER     train the spec into FOLDER, slowly enough to be killed
"""

import contextlib
import json
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

from asymlib import RunRecord, make_spec
from asymlib.execution import running
from asymlib.runs.records import run_folder

SPEC = make_spec(method="grpo", steps=10)
EVERY = 4  # steps between two snapshots


def train(spec, writer, results, pause=0.0):
    """Stands in for the lab: a step's reward depends on all steps before it, as a policy's does."""
    writer.note(warmup={"name": "small-0", "sha256": "0" * 64})
    state = writer.resume()
    step, total = json.loads(state) if state else (0, 0.0)
    while step < spec.steps:
        step, total = step + 1, total / 2 + (step * 7 + spec.seed) % 5
        writer.log({"step": step, "reward": total / 10, "entropy": 1 / step})
        if step % EVERY == 0:
            writer.keep(json.dumps([step, total]).encode())
        time.sleep(pause)
    entry = {"benchmark": "walk-3", "checkpoint": "best", "step": step, "temperature": 0.4, "samples": 2, "correct": [1, 2]}
    writer.finish([entry], pd.DataFrame({"step": [1], "accuracy": [0.5], "covariance": [total]}))


running._engine = (lambda real: lambda name: train if TRAINS[0] else real(name))(running._engine)
TRAINS = [False]  # whether the stand-in trains


def run(results: Path, spec=SPEC, quiet=True) -> RunRecord:
    TRAINS[0] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if quiet else "always")
            return running.run_experiment(spec, results)
    finally:
        TRAINS[0] = False


def cut_off(results: Path, after: int) -> Path:
    """A run that was cut off after a step."""

    class Cut(Exception):
        pass

    def on_step(metrics):
        if metrics["step"] == after:
            raise Cut

    writer = running.RunWriter(SPEC, run_folder(SPEC, results), on_step)
    with contextlib.suppress(Cut):
        train(SPEC, writer, results)
    return writer.folder


def differs(results: Path) -> str | None:
    """Run the spec to its end; how its record differs from an undisturbed one."""
    record = run(results)
    if record.fault:
        return f"the run ends without a record: {record.fault}"
    expected = undisturbed()
    for part in ("metrics", "evaluation", "covariance"):
        if not getattr(record, part).equals(getattr(expected, part)):
            return f"another {part} than an undisturbed run's"
    return None


def undisturbed(made=[]) -> RunRecord:  # noqa: B006 - kept
    if not made:
        made.append(run(Path(tempfile.mkdtemp(prefix="undisturbed"))))
        for part in ("metrics", "evaluation", "covariance"):
            getattr(made[0], part)
        shutil.rmtree(made[0].folder.parents[2])
    return made[0]


def run_slowly(results: Path, pause: float) -> RunRecord:
    """So that it can be killed on the way."""
    global train
    TRAINS[0], real = True, train
    train = lambda *arguments: real(*arguments, pause)  # noqa: E731
    return running.run_experiment(SPEC, results)


if __name__ == "__main__":
    run_slowly(Path(sys.argv[1]), pause=0.02)
