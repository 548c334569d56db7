"""Train a spec under verl: `main_ppo` in a process of its own that ends with ours; the record is made of what it writes.

<record>/main_ppo.log    what verl prints, attempt after attempt
<record>/steps.jsonl     a line a step, from the trainer (diagnostics.py)
<record>/checkpoints/    the last step's, and the best step's on the selection benchmark
<record>/samples/        every response; hydra/: the configuration as verl read it
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
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ..experiment import ExperimentSpec
from ..records import RunRecord, RunWriter, write_atomically
from ..running import run_experiment
from . import cpu
from .overrides import Setting, settings

STEPS_FILE = "steps.jsonl"
SELECTION_BENCHMARK = "math-500"  # its best checkpoint is evaluated (Appendix C)
GRACE_SECONDS = 30  # for verl and Ray to end by themselves
POLL_SECONDS = 0.2
RAY_ATTEMPTS, RAY_TOO_SLOW = 3, "timed out during startup"  # a busy machine may miss Ray's fixed 15 s (ray#65983)


def launch(spec: ExperimentSpec, results: Path | None = None, ray_address: str | None = None) -> RunRecord:
    """`run_experiment`, on the Ray cluster at `ray_address` if one is given (as if $RAY_ADDRESS were set)."""
    if ray_address:
        os.environ["RAY_ADDRESS"] = ray_address
    return run_experiment(spec, results)


def train(spec: ExperimentSpec, writer: RunWriter, results: Path) -> None:
    """Run `spec` to its end into `writer`, from its last checkpoint if it was cut off before.

    Raises RuntimeError with the log's last lines if verl fails or ends before the last step (verl#5725: it may do so quietly).
    """
    folder = writer.folder.resolve()
    log = folder / "main_ppo.log"
    resumed = _rewind(folder)
    writer.truncate_metrics(0)
    progress = Progress(folder, writer, cpu.SELECTION_BENCHMARK if spec.profile == "cpu" else SELECTION_BENCHMARK)
    status = 0
    if resumed < spec.steps:
        with _main_ppo(arguments(spec, folder, results, resumed), log, spec) as process:
            while (status := process.poll()) is None:
                time.sleep(POLL_SECONDS)
                progress.read()
    progress.read()
    if progress.collapse is None and (status or progress.step != spec.steps):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise RuntimeError(f"verl ended with status {status} after step {progress.step} of {spec.steps}; {log} ends:\n{tail}")
    covariance = pd.DataFrame(progress.covariance, columns=["step", "accuracy", "covariance"])
    writer.finish(progress.evaluation(), covariance, progress.collapse)


def arguments(spec: ExperimentSpec, folder: Path, results: Path, resumed: int = 0) -> list[str]:
    """main_ppo's command line: the profile's settings and what this machine, record and attempt add."""
    data = Path(os.environ.get("ASYMLIB_DATA", results.resolve().parent / "data"))
    rows = settings(spec, folder, data) + (cpu.settings(spec) if spec.profile == "cpu" else [])
    if Path(spec.policy).is_dir():
        rows.append(Setting("actor_rollout_ref.model.path", str(Path(spec.policy).resolve()), "a worker's folder may differ"))
    if "RAY_ADDRESS" not in os.environ:
        rows.append(Setting("+ray_kwargs.ray_init.dashboard_host", "127.0.0.1", "whoever reaches it runs code"))
    rows += [
        Setting("+trainer.asymlib.record", str(folder), "this record"),
        Setting("hydra.run.dir", str(folder / "hydra"), "this record"),
        Setting("trainer.resume_mode", "resume_path" if resumed else "disable", "the last step that has line and checkpoint"),
        Setting("trainer.resume_from_path", str(_checkpoint(folder, resumed)) if resumed else None, "this attempt"),
    ]
    return [row.override for row in {row.key.lstrip("+"): row for row in rows}.values()]  # later rows replace earlier ones


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
        self.best_step, self.best_accuracy, self.best_answers = 0, -1.0, {}
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
        if entry["validation"]:
            self._select(entry["validation"])
        self.writer.log(entry["metrics"])

    def _select(self, answers: dict[str, list[int]]) -> None:
        """Note the best validation so far and keep its checkpoint and the last one only."""
        if self.selection not in answers:
            raise RuntimeError(
                f"verl validated on {', '.join(answers)} but not on {self.selection}, which selects the checkpoint"
            )
        accuracy = sum(answers[self.selection]) / len(answers[self.selection])
        if accuracy > self.best_accuracy:
            self.best_step, self.best_accuracy, self.best_answers = self.step, accuracy, answers
        if _checkpoint(self.folder, self.step).is_dir():
            _remove_checkpoints(self.folder, lambda step: step < self.step and step != self.best_step)

    def evaluation(self) -> list[dict]:
        """The best step's greedy validation, its problems in the order of their prompts' text."""
        common = {"checkpoint": "best", "step": self.best_step, "temperature": 0.0, "samples": 1}
        return [{"benchmark": name} | common | {"correct": right} for name, right in self.best_answers.items()]


@contextmanager
def _main_ppo(overrides: list[str], log: Path, spec: ExperimentSpec) -> Iterator[subprocess.Popen]:
    """verl's process, ended when the block is left, however it is left."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "HYDRA_FULL_ERROR": "1"}
    if spec.profile == "cpu":
        environment |= cpu.ENVIRONMENT
    command = [sys.executable, "-m", __name__, *overrides]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        process.stdin.close()  # which is how it learns that we are done with it
        try:
            process.wait(2 * GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """verl's entry point with this process's arguments, on a Ray in a temporary folder unless $RAY_ADDRESS names a cluster."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    import ray
    from verl.trainer.main_ppo import main as main_ppo

    from .plugin import assert_registered

    assert_registered()
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        if "RAY_ADDRESS" not in os.environ:
            sys.argv.append(f"+ray_kwargs.ray_init._temp_dir={folder}")
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
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
