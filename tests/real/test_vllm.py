"""vLLM itself, on a CPU: in the evaluation, and as the rollout of a training run under verl. `make test-vllm` sets it up."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from tiny_chat import write_checkpoint

from asymlib import make_spec
from asymlib.runs.records import RunRecord, run_folder
from asymlib.verl.rehearse import CPU_STEPS, shortened

ROOT = Path(__file__).parents[2]
HERE = os.environ.get("ASYMLIB_VLLM")  # the environment's folder
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="`make test-vllm` runs it: vLLM needs an environment of its own ($ASYMLIB_VLLM)"),
]
# A CPU's: no cores pinned, 1 GB of cache.
VARIABLES = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
# What differs from the settings of the profile h100 because there is no GPU: no graphs, no sleep between updates (it frees a
# GPU's memory), small buffers.
OVERRIDES = """
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.enforce_eager=true
    +actor_rollout_ref.rollout.enable_sleep_mode=false
    actor_rollout_ref.rollout.free_cache_engine=false
    actor_rollout_ref.rollout.gpu_memory_utilization=0.1
    actor_rollout_ref.rollout.max_model_len=1600
    actor_rollout_ref.rollout.max_num_batched_tokens=2048
    actor_rollout_ref.rollout.max_num_seqs=64
    actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=16
""".split()


def asymlib(*arguments, **variables) -> str:
    """What the command says, run by the environment's Python on this asymlib."""
    python = Path(HERE).absolute() / "bin" / "python"
    environment = os.environ | VARIABLES | {"PYTHONPATH": str(ROOT)} | variables
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"  # the notebook's kernel is `python`
    command = [python, "-W", "ignore", "-m", "asymlib", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def responses(folder: Path, name: str) -> tuple[dict, list]:
    settings, *lines = map(json.loads, (folder / f"{name}.jsonl").read_text().splitlines())
    return settings, [[text.split() for text in line["responses"]] for line in lines]  # they space words unlike each other


def test_vllm_says_what_transformers_says(tmp_path):
    """Greedily, of a float32 checkpoint, in a minute; vLLM alone would take bfloat16."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tied=False, head_dim=32)
    problems = [
        {
            "data_source": "math-500",
            "prompt": [{"role": "user", "content": f"what is {i} + {i} ?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(2 * i)},
            "extra_info": {"split": "test", "index": i},
        }
        for i in range(10)
    ]
    pd.DataFrame(problems).to_parquet(tmp_path / "math-500.parquet")
    options = ["--data", tmp_path, "--benchmarks=math-500", "--samples=1", "--temperature=0", "--response-tokens=24"]
    for engine in ("vllm", "transformers"):
        asymlib("evaluate", checkpoint, *options, f"--engine={engine}", "--output", tmp_path / engine)
    (settings, of_vllm), (_, of_transformers) = (responses(tmp_path / name, "math-500") for name in ("vllm", "transformers"))
    assert (settings["engine"], settings["dtype"]) == ("vllm", "float32")
    assert of_vllm == of_transformers and of_vllm[0] != of_vllm[1]
    sampled = ["--data", tmp_path, "--benchmarks=math-500", "--samples=4", "--response-tokens=24", "--engine=vllm"]
    asymlib("evaluate", checkpoint, *sampled, "--output", tmp_path / "sampled")
    _, several = responses(tmp_path / "sampled", "math-500")
    assert all(len(four) == 4 for four in several) and any(four[0] != four[1] for four in several)


def test_vllm_is_the_rollout_of_a_run_that_is_cut_off_and_resumed(tmp_path):
    """A rehearsal on a CPU, but with vLLM in the place of transformers; four minutes on two cores.

    The learning rate is 500 times the paper's: weights that are not synchronised would show, for a step moves the log-probs
    a thousand times the gap that is allowed. $ASYMLIB_VLLM_RECORD: a folder for what is worth keeping.
    """
    fields = {"method": "asymgrpo", "policy": "Qwen/Qwen3-4B", "profile": "h100", "learning_rate": 1e-3}
    results, spec = tmp_path / "results", make_spec(**fields)
    options = ["--policy", spec.policy, "--set=learning_rate=0.001", "--tokenizer=bytes", "--patience=300"]
    options += [f"--override={override}" for override in OVERRIDES]
    asymlib("verl", "rehearse", spec.method, *options, "--results", results)
    record = RunRecord(run_folder(shortened(spec, on_cpu=True), results / "rehearsal"))
    assert record.is_done and record.provenance["versions"]["vllm"] and len(record.provenance["earlier_attempts"]) == 1
    log = (record.folder / "main_ppo.log").read_text(errors="replace")
    assert "vLLMHttpServer" in log and "transformers_server" not in log
    lines = record.metrics.set_index("step")
    moved = (lines.log_prob_increment_pos / lines.response_length).abs()  # nats a token, of a step
    assert lines.index.tolist() == list(range(1, CPU_STEPS + 1)) and moved.max() > 1e-2
    assert lines.rollout_log_prob_gap_mean.max() < 1e-5 and lines.rollout_log_prob_gap.max() < 1e-4
    assert lines.val_acc.notna().any() and not record.evaluation.empty
    if keep := os.environ.get("ASYMLIB_VLLM_RECORD"):
        for path in record.folder.iterdir():
            if path.suffix in {".json", ".parquet", ".md"}:
                shutil.copy(path, keep)
