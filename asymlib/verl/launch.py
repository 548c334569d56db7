"""Train a spec under verl: `main_ppo` in a process of its own that ends with ours; the record is made of what it writes.

    <record>/main_ppo.log    what verl prints, attempt after attempt
    <record>/steps.jsonl     a line a step, from the trainer (trainer.py)
    <record>/checkpoints/    the last step's, and the best step's on the selection benchmark; after the run the best's weights
    <record>/samples/        every response
    <record>/hydra/config/   the configuration as verl read it
    <record>/evaluation/     the best checkpoint's samples

On several nodes the record must lie on a file system that they share.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from ..evaluation.sets import data_root
from ..runs.lines import before_first, unsealed
from ..runs.spec import ExperimentSpec
from ..runs.writer import RunWriter
from ..support.files import write_atomically
from .checkpoints import checkpoint_of, is_whole, keep_weights, refuse_other_ranks, remove_checkpoints, steps_there
from .setting import Machine
from .settings import STEPS_FILE, settings
from .target import machine_of, stand_in, target_of

GRACE_SECONDS = 30  # for verl and Ray to end by themselves
POLL_SECONDS = 0.2
# Mean |log-prob of the rollout engine - of the policy| past which something is wrong, by the rollouts' dtype; our choice.
# float32: sums in another order gave 1e-6 to 3e-6 on CPUs (transformers, vLLM), and up to 9e-5 over Qwen3's 151,936 entries
# (random stand-ins, results/rehearsal/). bfloat16 rounds to 8 bits, a relative error of
# 1/256, so that logits of about 10 are off by some hundredths; not measured by us yet.
GAP_LIMITS = {"float32": 5e-4, "bfloat16": 0.05}
# What verl, TransferQueue and vLLM log every minute though nothing moves; other counts than before are news.
HEARTBEAT = re.compile(
    rb"pending: \d+, running: \d+.*|perf_utils|Time range: last|Per-operation statistics"
    rb"|No available shared memory broadcast block"  # vLLM's, of an engine that waits for a worker
)
# SLURM sets these beside CUDA_VISIBLE_DEVICES, and verl refuses two of them.
OTHER_DEVICES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
LONGEST_TMPDIR = 24  # characters: Ray puts 80 more behind them, and the path of a socket has at most 107
RAY_ATTEMPTS, RAY_TOO_SLOW = 3, "timed out during startup"  # a busy machine may miss Ray's fixed 15 s (ray#65983)


def train(spec: ExperimentSpec, writer: RunWriter, results: Path) -> None:
    """Run `spec` to its end into `writer`, from its last checkpoint if it was cut off before.

    Raises RuntimeError with the log's last lines if verl fails, ends before the last step (verl#5725: it may do so quietly), or
    neither ends a step nor logs anything new for the machine's `patience`.
    """
    folder, target = writer.folder.resolve(), target_of(spec)
    machine = machine_of(spec)
    log, end, (resumed, damage) = folder / "main_ppo.log", "status 0", _rewind(folder)
    if damage:
        warnings.warn(damage, stacklevel=2)
        writer.note(damaged_progress=damage)
    last = checkpoint_of(folder, resumed) if resumed else None
    rows = settings(spec, folder, data_root(results), machine, last)
    weights = {"weights": "verl's hf_model", "dtype": target.dtype}
    writer.note(verl=machine._asdict(), evaluation=weights, resumed_from=resumed, **stand_in())
    progress = Progress(folder, writer, target.benchmarks(spec)[0], GAP_LIMITS[target.dtype])
    if resumed < spec.steps:
        refuse_other_ranks(last, machine)
        with _main_ppo([row.override for row in rows], log, _ray_token(machine) | target.environment) as process:
            end = _wait(process, log, progress, machine.patience)
    progress.read()
    if progress.collapse is None and (end != "status 0" or progress.step != spec.steps):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise RuntimeError(f"verl ended with {end} after step {progress.step} of {spec.steps}; {log} ends:\n{tail}")
    started = time.monotonic()
    evaluation = _evaluate(spec, folder, results, progress.best_step, machine.patience) if progress.best_step else []
    writer.note(seconds={"evaluation": time.monotonic() - started})
    covariance = pd.DataFrame(progress.covariance, columns=["step", "accuracy", "covariance"])
    writer.finish(evaluation, covariance, progress.collapse)
    keep_weights(folder, progress.best_step)


def _wait(process: subprocess.Popen, log: Path, progress: "Progress", patience: float) -> str:
    """Read on until verl ends, and say how: its status, or a silence of `patience` seconds."""
    heard, step, offset, beats = time.monotonic(), 0, 0, set()
    while (status := process.poll()) is None:
        time.sleep(POLL_SECONDS)
        progress.read()
        offset, says = _news(log, offset, beats)
        if says or progress.step != step:
            heard, step = time.monotonic(), progress.step
        elif time.monotonic() - heard > patience:
            return f"no step and no news in its log for {patience:g} seconds"
    return f"status {status}"


def _news(log: Path, offset: int, beats: set[bytes]) -> tuple[int, bool]:
    """Where the log's whole lines end, and whether those past `offset` say something that a heartbeat has not said before."""
    says = False
    with log.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            beat = HEARTBEAT.search(line)
            says |= beat is None or beat[0] not in beats
            beats |= {beat[0]} if beat else set()
    return offset, says


def _ray_token(machine: Machine) -> dict[str, str]:
    """A cluster that asks for a token answers InvalidAuthToken unless Ray is told to use the one in ~/.ray."""
    has_token = (Path.home() / ".ray" / "auth_token").is_file()
    return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")} if machine.ray_address and has_token else {}


def _rewind(folder: Path) -> tuple[int, str]:
    """Cut the trainer's lines back to the last step that has a checkpoint: that step, 0 if none has, and what was damaged.

    A step's line is written after its checkpoint, so a checkpoint with a sound line is whole; those without one are removed.
    """
    path, entry = folder / STEPS_FILE, {}
    sound = [before_first(path)]
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        entry = unsealed(line, sound[-1]) if line.endswith(b"\n") else {}  # half a line is a death while it was written
        if "metrics" not in (entry or {}):
            break
        sound.append(line)
    count, steps = len(sound) - 1, list(steps_there(folder))
    last = max((step for step in steps if step <= count and is_whole(checkpoint_of(folder, step))), default=0)
    damaged = entry is None or max(steps, default=0) > count + 1
    write_atomically(path, b"".join(sound[1 : last + 1]))
    remove_checkpoints(folder, lambda step: step > last)
    goes_on = f"goes on from step {last}" if last else "starts anew"
    return last, f"{path} is damaged after step {count}: the run {goes_on}" if damaged else ""


class Progress:
    """Reads the trainer's lines as they come: metrics go into the record at once, the rest is kept for its end."""

    def __init__(self, folder: Path, writer: RunWriter, selection: str, gap_limit: float):
        self.folder, self.writer, self.selection, self.gap_limit = folder, writer, selection, gap_limit
        self.step, self.offset, self.before = 0, 0, before_first(folder / STEPS_FILE)
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
                if (entry := unsealed(line, self.before)) is None:
                    raise RuntimeError(f"{file.name}: the line after step {self.step} is damaged; run it again")
                self.offset, self.before = self.offset + len(line), line
                self._take(entry)

    def _take(self, entry: dict) -> None:
        if "collapse" in entry:
            self.collapse = entry["collapse"]
            return
        self.step = entry["metrics"]["step"]
        self.covariance += [(self.step, accuracy, value) for accuracy, value in entry["covariance"]]
        self._select(entry["metrics"])
        self._compare(entry["metrics"])
        self.writer.log(entry["metrics"])

    def _compare(self, metrics: dict) -> None:
        """Warn, once, of rollouts that another policy than the trained one seems to have sampled."""
        gap = metrics.get("rollout_log_prob_gap_mean") or 0.0
        if gap > self.gap_limit:
            message = f"step {self.step}: log-probs of rollouts and of the policy differ by {gap:.2g} nats a token in the mean"
            message += f", more than {self.gap_limit:g}: are the rollout's weights the trained ones?"
            warnings.warn(message, stacklevel=2)
            self.writer.note(rollout_log_prob_gap=message)
            self.gap_limit = float("inf")

    def _select(self, metrics: dict) -> None:
        """At a validation, note the best step so far and keep no checkpoint but its and the last."""
        if "val_acc" not in metrics:
            return
        accuracy = metrics.get(f"val_acc/{self.selection}")
        if accuracy is None:
            raise RuntimeError(f"verl did not validate on {self.selection}, which selects the checkpoint")
        if accuracy > self.best_accuracy:
            self.best_step, self.best_accuracy = self.step, accuracy
        if checkpoint_of(self.folder, self.step).is_dir():
            remove_checkpoints(self.folder, lambda step: step < self.step and step != self.best_step)


def _evaluate(spec: ExperimentSpec, folder: Path, results: Path, step: int, patience: int) -> list[dict]:
    """The checkpoint that is best on the selection benchmark, sampled on every benchmark as the paper does (Avg@k)."""
    from ..evaluation.evaluate import evaluate

    common = {"output": folder / "evaluation", "response_tokens": spec.max_response_tokens, "label": "best"}
    target = target_of(spec)
    common |= {"dtype": target.dtype, "patience": patience}
    return evaluate(checkpoint_of(folder, step), target.benchmarks(spec), **common | target.evaluation(spec, results))


@contextmanager
def _main_ppo(overrides: list[str], log: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen]:
    """verl's process, on a Ray of its own unless $RAY_ADDRESS names a cluster; both end with the block, however it is left."""
    command = [sys.executable, "-m", __name__, *overrides]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "HYDRA_FULL_ERROR": "1"} | variables
    environment = {name: value for name, value in environment.items() if name not in OTHER_DEVICES}
    place = "/tmp" if len(tempfile.gettempdir()) > LONGEST_TMPDIR else None
    with (
        log.open("ab") as output,
        tempfile.TemporaryDirectory(prefix="ray", dir=place, ignore_cleanup_errors=True) as temporary,
    ):
        if "RAY_ADDRESS" not in environment:
            # The second is Ray's only word for it: all of it listens on localhost only.
            environment |= {"RAY_TMPDIR": temporary, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
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
