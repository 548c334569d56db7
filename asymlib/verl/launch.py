"""Train a spec under verl: `main_ppo` in a process of its own that ends with ours; the record is made of what it writes.

    <record>/main_ppo.log    what verl prints, attempt after attempt
    <record>/steps.jsonl     a line a step, from the trainer (trainer.py)
    <record>/checkpoints/    the last step's, and the best step's on the selection benchmark
    <record>/samples/        every response
    <record>/hydra/config/   the configuration as verl read it
    <record>/evaluation/     the best checkpoint's samples

On several nodes the record must lie on a file system that they share.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from ..evaluation.data import data_root
from ..runs.spec import ExperimentSpec
from ..runs.writer import RunWriter
from ..support.files import write_atomically
from .setting import Machine
from .settings import STEPS_FILE, settings
from .target import target_of

GRACE_SECONDS = 30  # for verl and Ray to end by themselves
POLL_SECONDS = 0.2
RAY_ATTEMPTS, RAY_TOO_SLOW = 3, "timed out during startup"  # a busy machine may miss Ray's fixed 15 s (ray#65983)


def train(spec: ExperimentSpec, writer: RunWriter, results: Path) -> None:
    """Run `spec` to its end into `writer`, from its last checkpoint if it was cut off before.

    Raises RuntimeError with the log's last lines if verl fails or ends before the last step (verl#5725: it may do so quietly).
    """
    folder = writer.folder.resolve()
    log, status, resumed = folder / "main_ppo.log", 0, _rewind(folder)
    progress = Progress(folder, writer, target_of(spec).benchmarks(spec)[0])
    if resumed < spec.steps:
        last = _checkpoint(folder, resumed) if resumed else None
        rows = settings(spec, folder, data_root(results), Machine.of_environment(target_of(spec).gpus), last)
        with _main_ppo([row.override for row in rows], log, target_of(spec).environment) as process:
            while (status := process.poll()) is None:
                time.sleep(POLL_SECONDS)
                progress.read()
    progress.read()
    if progress.collapse is None and (status or progress.step != spec.steps):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise RuntimeError(f"verl ended with status {status} after step {progress.step} of {spec.steps}; {log} ends:\n{tail}")
    evaluation = _evaluate(spec, folder, results, progress.best_step) if progress.best_step else []
    covariance = pd.DataFrame(progress.covariance, columns=["step", "accuracy", "covariance"])
    writer.finish(evaluation, covariance, progress.collapse)


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"global_step_{step}"


def _rewind(folder: Path) -> int:
    """Cut the trainer's lines back to the last step that has a checkpoint and return it; 0 if none has.

    A step's line is written after its checkpoint, so a checkpoint with a line is whole; those without one are removed.
    """
    path = folder / STEPS_FILE
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    lines = [line for line in lines if line.endswith(b"\n") and b'"metrics"' in line]
    last = next((step for step in range(len(lines), 0, -1) if _checkpoint(folder, step).is_dir()), 0)
    write_atomically(path, b"".join(lines[:last]))
    _remove_checkpoints(folder, lambda step: step > last)
    return last


def _remove_checkpoints(folder: Path, unwanted) -> None:
    for path in (folder / "checkpoints").glob("global_step_*"):
        if unwanted(int(path.name.removeprefix("global_step_"))):
            shutil.rmtree(path)


class Progress:
    """Reads the trainer's lines as they come: metrics go into the record at once, the rest is kept for its end."""

    def __init__(self, folder: Path, writer: RunWriter, selection: str):
        self.folder, self.writer, self.selection = folder, writer, selection
        self.step, self.offset = 0, 0
        self.best_step, self.best_accuracy = 0, -1.0
        self.covariance: list[tuple[int, float, float]] = []
        self.collapse: str | None = None

    def read(self) -> None:
        """Take the whole lines that are new."""
        with (self.folder / STEPS_FILE).open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                self._take(json.loads(line))

    def _take(self, entry: dict) -> None:
        if "collapse" in entry:
            self.collapse = entry["collapse"]
            return
        self.step = entry["metrics"]["step"]
        self.covariance += [(self.step, accuracy, value) for accuracy, value in entry["covariance"]]
        self._select(entry["metrics"])
        self.writer.log(entry["metrics"])

    def _select(self, metrics: dict) -> None:
        """At a validation, note the best step so far and keep no checkpoint but its and the last."""
        if "val_acc" not in metrics:
            return
        accuracy = metrics.get(f"val_acc/{self.selection}")
        if accuracy is None:
            raise RuntimeError(f"verl did not validate on {self.selection}, which selects the checkpoint")
        if accuracy > self.best_accuracy:
            self.best_step, self.best_accuracy = self.step, accuracy
        if _checkpoint(self.folder, self.step).is_dir():
            _remove_checkpoints(self.folder, lambda step: step < self.step and step != self.best_step)


def _evaluate(spec: ExperimentSpec, folder: Path, results: Path, step: int) -> list[dict]:
    """The checkpoint that is best on the selection benchmark, sampled on every benchmark as the paper does (Avg@k)."""
    from ..evaluation.evaluate import evaluate

    common = {"output": folder / "evaluation", "response_tokens": spec.max_response_tokens, "label": "best"}
    target = target_of(spec)
    return evaluate(_checkpoint(folder, step), target.benchmarks(spec), **common | target.evaluation(spec, results))


@contextmanager
def _main_ppo(overrides: list[str], log: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen]:
    """verl's process, on a Ray of its own unless $RAY_ADDRESS names a cluster; both end with the block, however it is left."""
    command = [sys.executable, "-m", __name__, *overrides]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "HYDRA_FULL_ERROR": "1"} | variables
    with log.open("ab") as output, tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as temporary:
        if "RAY_ADDRESS" not in environment:
            environment["RAY_TMPDIR"] = temporary
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            process.stdin.close()  # which is how it learns that we are done with it
            with suppress(subprocess.TimeoutExpired):
                process.wait(2 * GRACE_SECONDS)
            _kill_group(process.pid)
            process.wait()


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def main() -> None:
    """verl's entry point with this process's arguments, which ends when its launcher does."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    import ray
    from verl.trainer.main_ppo import main as main_ppo

    from .plugin import assert_registered

    assert_registered()
    try:
        for attempt in range(RAY_ATTEMPTS):
            try:
                return main_ppo()
            except Exception as error:
                if RAY_TOO_SLOW not in str(error) or attempt + 1 == RAY_ATTEMPTS:
                    raise
    finally:
        ray.shutdown()


def _end_with_launcher() -> None:
    """Wait for the launcher to close our standard input, which any death of it does; then end, and all that we started."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    _kill_group(0)


if __name__ == "__main__":
    main()
