"""An engine that hangs ends an evaluation, with what was sampled kept: engines that really hang, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from tiny_chat import write_checkpoint

from asymlib.support import patience

ROOT = Path(__file__).resolve().parents[2]
# As vLLM: the engine's work is done by another process, and the caller waits for it.
PROGRAM = """
import subprocess, sys
from asymlib.cli.main import main
from asymlib.evaluation.generation import ENGINES, Engine

def load(folder, dtype):
    engine = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("engine", engine.pid, flush=True)
    if PLACE == "load":
        engine.wait()
    def generate(chats, seeds, sampling):
        generate.calls += 1
        if generate.calls == 2:
            engine.wait()
        return [["a"] * sampling.samples for _ in chats]
    generate.calls = 0
    return generate

ENGINES["transformers"] = Engine(load, 2)
main()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint and a benchmark of five problems."""
    folder = tmp_path_factory.mktemp("place")
    write_checkpoint(folder / "checkpoint")
    row = {"data_source": "sums", "prompt": [{"role": "user", "content": "what is 1 + 1 ?"}]}
    pd.DataFrame([row | {"reward_model": {"ground_truth": "2"}}] * 5).to_parquet(folder / "sums.parquet")
    return folder


@pytest.mark.parametrize(("hangs_in", "done"), [("load", 0), ("generate", 2)])
@pytest.mark.parametrize("way", ["option", "variable"])
def test_the_command_ends_and_what_was_sampled_is_kept(place, tmp_path, hangs_in, done, way):
    options = ["--benchmarks", "sums", "--samples", "1", "--response-tokens", "4", "--engine", "transformers"]
    options += ["--data", str(place), "--output", "out"] + (["--patience", "2"] if way == "option" else [])
    command = [sys.executable, "-c", f"PLACE = {hangs_in!r}\n{PROGRAM}", "evaluate", str(place / "checkpoint"), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"ASYMLIB_PATIENCE": "2"} if way == "variable" else {})
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    engine = next(line for line in result.stdout.splitlines() if line.startswith("engine"))
    os.kill(int(engine.split()[1]), signal.SIGKILL)  # this one does not end with its parent, as vLLM's does
    assert result.returncode == 1, result.stderr
    path = Path("out") / "sums.jsonl"
    said = f"{path}: {done} of 5 problems are done, and nothing came from transformers for 2 seconds"
    assert result.stdout.splitlines()[-1] == said
    assert [json.loads(line)["index"] for line in (tmp_path / path).read_text().splitlines()[1:]] == list(range(done))


@pytest.mark.parametrize("where", ["a lock of C code", "another thread"])
def test_what_no_alarm_reaches_ends_the_process_with_its_stacks(where):
    hang = "[block := m.within(1, 'silence'), block.__enter__(), signal.pthread_sigmask(0, [signal.SIGALRM]), time.sleep(60)]"
    run = f"threading.Thread(target=lambda: {hang}).start()" if where == "another thread" else hang
    program = f"import signal, threading, time; from asymlib.support import patience as m; m.GRACE = 0.5; {run}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, cwd=ROOT)
    assert result.returncode == 1 and "Timeout" in result.stderr and "most recent call first" in result.stderr


def test_a_block_in_time_leaves_no_alarm_behind():
    before = signal.getsignal(signal.SIGALRM)
    with patience.within(1, "silence"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0) and signal.getsignal(signal.SIGALRM) is before
    with pytest.raises(RuntimeError, match=r"^nothing came for 1 seconds$"), patience.within(1, "nothing came"):
        threading.Event().wait(60)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
