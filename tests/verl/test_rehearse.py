"""The rehearsal's arithmetic by hand, its data and stand-ins; and, slow, three specs on a CPU with what is built from them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_rehearsal import MEASURED

from asymlib import make_spec
from asymlib.cli import rehearse
from asymlib.evaluation.sets import BENCHMARKS
from asymlib.runs.records import RunRecord
from asymlib.verl.rehearse import CPU_STEPS, MEMORY, cut_data, page, project, shortened, together

ROOT = Path(__file__).parents[2]
SPEC = make_spec(
    method="asymgrpo", policy="Qwen/Qwen3-4B", profile="h100"
)  # 128 prompts, 64 a mini-batch, 4,096 tokens, 300 steps
SHORT = shortened(SPEC, on_cpu=False)


def test_a_rehearsal_differs_in_numbers_of_prompts_and_steps_only():
    changed = {name for name, value in SPEC.model_dump().items() if getattr(SHORT, name) != value}
    assert changed == {"steps", "validation_every", "prompts_per_step", "prompts_per_minibatch"}
    assert (SHORT.steps, SHORT.prompts_per_step, SHORT.prompts_per_minibatch) == (3, 32, 16)
    on_cpu = shortened(make_spec(method="grpo", policy="Qwen/Qwen2.5-Math-1.5B", profile="h100"), on_cpu=True)
    assert (on_cpu.prompts_per_step, on_cpu.prompts_per_minibatch, on_cpu.max_response_tokens) == (4, 1, 32)


def test_the_projection_by_hand():
    """A step: (10 + 20) x 4 for four times the prompts, and 40 - 10 - 20 - 6 = 4 that stay. 25,600 tokens/s."""
    found = project(SPEC, SHORT, MEASURED, 2.0)
    validation, evaluation = 1274 * 1000 / 25_600, 6870 * 1000 / 25_600 * 4
    seconds = 360 + 300 * 124 + 30 * (validation + 6) + evaluation
    assert found.hours == pytest.approx(seconds / 3600)
    assert found.gpu_hours == pytest.approx(4 * found.hours) and found.dollars == pytest.approx(8 * found.hours)
    assert found.disk == pytest.approx(3 * 64 + 300 * 4 * 0.001) and found.kept == pytest.approx(8 + 300 * 4 * 0.001)
    assert together([found] * 14).disk == pytest.approx(13 * found.kept + found.disk)  # one trains, the others are finished
    assert together([found] * 14).kept == pytest.approx(14 * found.kept)
    longest = 360 + 300 * (120 * 4.096 + 4) + 30 * (validation * 4.096 + 6) + evaluation * 4.096
    assert found.most_hours == pytest.approx(longest / 3600)
    rarer = project(make_spec(**SPEC.model_dump() | {"increment_every": 10}), SHORT, MEASURED, 2.0)
    assert found.hours - rarer.hours == pytest.approx(300 * 4 * 0.9 * 4 / 3600)


def test_the_page_says_what_was_measured_and_projects_the_matrix():
    others = [SPEC, make_spec(method="grpo", policy="Qwen/Qwen3-4B", profile="h100"),
              make_spec(method="grpo", policy="Qwen/Qwen2.5-Math-1.5B", profile="h100")]  # fmt: skip
    text = page(SPEC, SHORT, MEASURED, 3.0, others)
    for said in (
        "| rollout | 10.0 | 25600 tokens/s",
        "10% of a step",
        "at the start: 40.0%",
        "72.0 GB on the fullest GPU, 61.0 of them",
        "at most 0.2 nats",
    ):
        assert said in text, text
    hours = project(SPEC, SHORT, MEASURED, 3.0).hours
    assert f"| this run | {hours:.1f} |" in text and f"| 2 runs of the matrix with this policy | {2 * hours:.1f} |" in text
    assert "stand-in" not in text and MEMORY in text
    cpu = page(SPEC, SHORT, MEASURED | {"stand_in": {"tokenizer": "bytes"}, "memory_gigabytes": {"host": 3.0}}, 3.0, [])
    assert "of GPUs it says nothing" in cpu and "tokenizer: bytes" in cpu
    later = page(SPEC, SHORT, MEASURED | {"later_gigabytes": {"host": 9.0, "card": 70.0}}, 3.0, [])
    assert "90.0 GB of the host until the cut." in later and "90.0 GB of the host.\n" in text
    assert "the resumed run and the evaluation: 9.0 GB of the host, 70.0 GB on the fullest GPU." in later


def test_what_it_advises_when_memory_is_short_are_settings_of_verl():
    pytest.importorskip("verl")
    from hydra import compose, initialize_config_module

    keys = [word.split("=")[0] for word in MEMORY.replace("...", "actor_rollout_ref.actor.fsdp_config.").split() if "=" in word]
    assert len(keys) == 4
    with initialize_config_module("verl.trainer.config", version_base=None):
        compose("ppo_trainer", [f"{key}=1" for key in keys])  # an unknown key is refused


@pytest.mark.parametrize(
    ("says", "card"),
    [("printf '72000\\n73000\\n'", 73000 * 2**20 / 1e9), ("echo '[N/A]'", None), ("exit 9", None), (None, None)],
    ids=["two cards", "no such number", "no driver", "no program"],
)
def test_the_fullest_card_is_what_nvidia_smi_says(tmp_path, monkeypatch, says, card):
    if says:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{says}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if says else str(tmp_path))
    assert rehearse._gigabytes().get("card") == card


def test_made_up_data_have_the_sets_names_and_answers_that_a_stand_in_can_say(tmp_path):
    from asymlib.verl.cpu.standin import byte_tokenizer

    kind = cut_data(tmp_path / "absent", tmp_path / "data", byte_tokenizer())
    assert kind.startswith("made-up sums")
    for name in ("train", *BENCHMARKS):
        rows = pq.read_table(tmp_path / "data" / f"{name}.parquet").to_pylist()
        assert len(rows) == (400 if name == "train" else 4)
        assert {row["reward_model"]["ground_truth"] for row in rows} == {"0", "1", "2"} and rows[0]["data_source"] == name


@pytest.mark.parametrize("policy", ["Qwen/Qwen3-4B", "Qwen/Qwen2.5-Math-1.5B"])
def test_a_stand_in_answers_in_a_box_and_the_rollouts_of_a_group_differ_but_repeat(tmp_path, policy):
    import asyncio

    from transformers import AutoConfig, AutoTokenizer

    from asymlib.verl.cpu.rollout import Server
    from asymlib.verl.cpu.standin import write_stand_in

    assert write_stand_in(policy, tmp_path, "bytes")["tokenizer"] == "bytes"
    tokens = AutoTokenizer.from_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == policy[5:10].lower()
    chat = [{"role": "user", "content": "What is 1+1?"}]
    ids = tokens(tokens.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))["input_ids"]

    def group(seed, temperature=1.0, server=None):
        server = server or Server(str(tmp_path), 32, seed)

        async def ask():
            sampling = {"temperature": temperature, "top_p": 1.0, "top_k": -1}
            return await asyncio.gather(*(server.generate("a name", ids, sampling) for _ in range(8)))

        with ThreadPoolExecutor(1) as thread:  # of its own: a browser test's event loop may run in this one
            return [output.token_ids for output in thread.submit(asyncio.run, ask()).result()]

    first = group(0)
    assert first == group(0) != group(1)
    assert len(set(map(tuple, first))) >= 3  # no 8 copies
    assert len(set(map(tuple, group(0, temperature=0.0)))) == 1
    texts = [tokens.decode(row) for row in first]
    assert sum(text in {f"\\boxed{{{d}}}<|im_end|>" for d in range(3)} for text in texts) >= 4, texts


@pytest.mark.slow
def test_three_specs_are_rehearsed_and_their_profile_is_built(tmp_path):
    """As a user types it. A second time nothing is trained."""
    matrix = tmp_path / "three.yaml"
    matrix.write_text(
        "defaults: {profile: h100}\naxes:\n  run:\n"
        "    - {method: reinforce, policy: Qwen/Qwen2.5-Math-1.5B}\n"
        "    - {method: grpo_entropy_adv, policy: Qwen/Qwen3-4B}\n"
        "    - {method: asymgrpo, policy: Qwen/Qwen3-4B}\n"
    )
    results = tmp_path / "results"
    command = [sys.executable, "-W", "ignore", "-m", "asymlib", "batch", matrix, "--rehearse", "--tokenizer", "bytes"]
    for _ in range(2):
        done = subprocess.run([*command, "--results", results], cwd=ROOT, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stdout + done.stderr
        text = (results / "rehearsal" / "three.md").read_text()
        assert "3 runs, 0 failed" in text and text in done.stdout
    folders = list((results / "rehearsal" / "h100" / "runs").iterdir())
    assert len(folders) == 3
    for folder in folders:
        measured = json.loads((folder / "rehearsal.json").read_text())
        assert not (folder / "checkpoints").exists() and measured["checkpoint_gigabytes"] > 2 * measured["kept_gigabytes"] > 0
        assert measured["rollout_log_prob_gap"] < 1e-4 and 0 < measured["reward_at_start"] < 1
        assert 2 <= RunRecord(folder).provenance["resumed_from"] < CPU_STEPS
    build = [sys.executable, "-W", "ignore", "-m", "asymlib", "build", "h100", "--results", results / "rehearsal"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr  # a notebook that lacks a method is left out, none fails
    assert "30_table1.ipynb: built" in done.stdout and "33_one_look.ipynb: left out: no finished run of grpo" in done.stdout
