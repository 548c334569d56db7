"""Evaluating a tiny random model on tiny benchmarks, on a CPU: samples, settings, files, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tiny_chat import write_checkpoint

from asymlib.analysis.statistics import avg_at_k
from asymlib.evaluation import evaluate as module
from asymlib.evaluation import generation
from asymlib.evaluation.evaluate import evaluate, summary
from asymlib.runs.records import RunRecord

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def write_benchmark(folder: Path, name: str, problems: int = PROBLEMS, truths: str = "0123456789") -> None:
    rows = [
        {
            "data_source": name,
            "prompt": [{"role": "user", "content": f"what is {i % 5} + {i // 5} ?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": truths[i % len(truths)]},
            "extra_info": {"split": "test", "index": i},
        }
        for i in range(problems)
    ]
    pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_benchmark(folder, "aime-2024")
    write_benchmark(folder, "sums", 3)
    return folder


@pytest.fixture
def run(checkpoint, data, tmp_path):
    """evaluate(...) with a small model's options; into tmp_path/out unless told otherwise."""

    def run(benchmarks=("aime-2024",), output=tmp_path / "out", **options):
        options = dict(samples=3, engine="transformers", data=data, response_tokens=5, report=lambda line: None) | options
        return evaluate(options.pop("checkpoint", checkpoint), benchmarks, output=output, **options)

    return run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_entries_files_and_scores_agree(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_score", lambda row, text: float("3" in text))
    entries = run(["aime-2024", "sums"], temperature=1.0)
    assert [entry["benchmark"] for entry in entries] == ["aime-2024", "sums"]
    header, *problems = lines(tmp_path / "out" / "aime-2024.jsonl")
    assert header["samples"] == 3 and header["temperature"] == 1.0 and header["engine"] == "transformers"
    assert [problem["index"] for problem in problems] == list(range(PROBLEMS))
    rights = [sum("3" in text for text in problem["responses"]) for problem in problems]
    assert entries[0]["correct"] == rights and 0 < sum(rights) < 3 * PROBLEMS
    assert all(len(p["responses"]) == 3 and len(text.split()) <= 5 for p in problems for text in p["responses"])
    record = RunRecord(tmp_path / "out").evaluation
    assert record.correct.tolist() == [entry["correct"] for entry in entries]
    assert record.columns.tolist() == ["benchmark", "checkpoint", "step", "temperature", "samples", "correct"]


def test_scores_are_the_maths_reward(run, tmp_path, data):
    """A policy that says nothing but a box: with the reward itself, in its own processes."""
    row = {"data_source": "aime-2024", "reward_model": {"ground_truth": "24"}}
    assert module._score(row, r"\boxed{ 24 }") == 1.0
    assert module._score(row, r"\boxed{\frac{48}{2}}") == 1.0
    assert module._score(row, "24") == 0.0


def test_a_number_walk_is_scored_by_its_own_reward(monkeypatch):
    walks = type(sys)("walks")
    walks.compute_score = lambda data_source, text, truth: float((data_source, text, truth) == ("walk-mix", "x 1", "1 x :"))
    monkeypatch.setitem(sys.modules, module.SCORES["walk"], walks)
    row = {"data_source": "walk-mix", "reward_model": {"ground_truth": "1 x :"}}
    assert (module._score(row, "x 1"), module._score(row, "x 2")) == (1.0, 0.0)


def test_samples_are_of_the_stated_settings_not_of_the_checkpoints(run, tmp_path):
    """The checkpoint's generation_config asks for top_k 1 at temperature 0.01: then all samples would be equal."""
    run(temperature=1.0, samples=8)
    _, *problems = lines(tmp_path / "out" / "aime-2024.jsonl")
    assert all(len(set(problem["responses"])) > 4 for problem in problems)


def test_greedy_at_temperature_zero(run, tmp_path):
    run(samples=1, temperature=0.0)
    run(samples=1, temperature=0.0, seed=5, output=tmp_path / "other")
    first, second = (lines(tmp_path / name / "aime-2024.jsonl")[1:] for name in ("out", "other"))
    assert first == second


def test_problems_have_seeds_of_their_own_and_the_seed_counts(run, tmp_path):
    run(temperature=1.0)
    run(temperature=1.0, output=tmp_path / "again")
    run(temperature=1.0, seed=1, output=tmp_path / "seed1")
    texts = [[p["responses"] for p in lines(tmp_path / o / "aime-2024.jsonl")[1:]] for o in ("out", "again", "seed1")]
    assert texts[0] == texts[1] != texts[2]
    assert len({json.dumps(responses) for responses in texts[0]}) > 1


def test_a_finished_evaluation_loads_no_model(run, monkeypatch):
    entries = run()
    monkeypatch.setitem(module.ENGINES, "transformers", generation.Engine(None, 1))
    assert run() == entries


def test_other_benchmarks_join_the_same_output(run, tmp_path):
    run()
    run(["sums"])
    assert RunRecord(tmp_path / "out").evaluation.benchmark.tolist() == ["aime-2024", "sums"]


def test_a_cut_line_is_done_again_and_the_rest_is_kept(run, tmp_path):
    whole = run(output=tmp_path / "whole")
    text = (tmp_path / "whole" / "aime-2024.jsonl").read_text()
    for cut in (len(text) - 1, len(text) - 40, text.index("\n") + 1, text.index("\n"), 10, 0):
        output = tmp_path / f"cut{cut}"
        output.mkdir()
        (output / "aime-2024.jsonl").write_text(text[:cut])
        assert run(output=output) == whole
        assert (output / "aime-2024.jsonl").read_text() == text


SLOW = """
import sys, time
from asymlib.evaluation import evaluate as module
score = module._score
def slowly(row, text):
    time.sleep(0.2)
    return score(row, text)
module._score = slowly
module.evaluate(sys.argv[1], ["aime-2024"], 3, "transformers", sys.argv[3], data=sys.argv[2], response_tokens=5)
"""


def test_a_killed_evaluation_goes_on_and_ends_as_an_undisturbed_one(run, checkpoint, data, tmp_path):
    command = [sys.executable, "-c", SLOW, str(checkpoint), str(data), str(tmp_path / "out")]
    file = tmp_path / "out" / "aime-2024.jsonl"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not file.exists() or file.read_text().count("\n") < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(ValueError, match="another evaluation is writing to it"):
            run()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = file.read_text()
    assert 3 <= before.count("\n") < PROBLEMS + 1 and not (tmp_path / "out" / "evaluation.json").exists()
    entries = run()
    assert file.read_text().startswith(before[: before.rfind("\n") + 1])
    assert entries == run(output=tmp_path / "undisturbed")
    for name in ("aime-2024.jsonl", "evaluation.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_checkpoint_of_verl_is_found_with_its_step(checkpoint, run, tmp_path):
    folder = tmp_path / "checkpoints" / "global_step_40"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "huggingface").symlink_to(checkpoint)
    entry = run(checkpoint=folder, label="best")[0]
    assert (entry["step"], entry["checkpoint"]) == (40, "best")
    (folder / "actor" / "huggingface").unlink()
    with pytest.raises(ValueError, match=r"python -m verl\.model_merger merge --backend fsdp --local_dir .*/actor "):
        run(checkpoint=folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "nosuch"}, "checkpoint='nosuch': must be a folder or a Hugging Face id"),
        ({"benchmarks": ["aime-2042"]}, "did you mean 'aime-2024'"),
        ({"benchmarks": ["sums"], "samples": None}, "samples is missing: 'sums' is not one of the paper's"),
        ({"benchmarks": []}, "benchmarks=[]: name at least one; the paper's are math-500"),
        ({"benchmarks": "sums"}, "benchmarks='sums': must be a list of names"),
        ({"dtype": "float23"}, "unknown dtype 'float23': did you mean 'float32'"),
        ({"samples": 0}, "samples=0: must be a whole number of at least 1"),
        ({"samples": True}, "samples=True: must be a whole number"),
        ({"response_tokens": 0}, "response_tokens=0: must be a whole number of at least 1"),
        ({"seed": 2**70}, "seed=1180591620717411303424: must be a whole number"),
        ({"temperature": 0.0}, "samples=3: must be at least 1, and 1 at temperature 0"),
        ({"temperature": -1.0}, "temperature=-1.0: must lie in 0..2"),
        ({"engine": "vlm"}, "unknown engine 'vlm': did you mean 'vllm'?"),
        ({"data": Path("nowhere")}, "run: asymlib data prepare"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(run, tmp_path, options, said):
    with pytest.raises(ValueError) as error:
        run(**options)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "written with seed=0, not 1"),
        ({"samples": 4}, "written with samples=3, not 4"),
        ({"temperature": 0.6}, "written with temperature=0.4, not 0.6"),
        ({"response_tokens": 6}, "written with response_tokens=5, not 6"),
    ],
)
def test_an_output_of_other_settings_is_refused(run, tmp_path, change, said):
    run()
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json*")}
    with pytest.raises(ValueError, match=said):
        run(**change)
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json*")} == before


def test_other_weights_or_problems_are_refused(run, tmp_path):
    run()
    with pytest.raises(ValueError, match="written with weights="):
        run(checkpoint=write_checkpoint(tmp_path / "other", seed=1))
    (tmp_path / "data").mkdir()
    write_benchmark(tmp_path / "data", "aime-2024", truths="9")
    with pytest.raises(ValueError, match="written with problems="):
        run(data=tmp_path / "data")


def test_vllm_is_refused_where_it_is_not_installed(run):
    if module.importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    with pytest.raises(ValueError, match="vllm is not installed"):
        run(engine="vllm")


def test_a_chunk_of_problems_is_kept_line_by_line(run, tmp_path, monkeypatch):
    """As vLLM's engine: several problems a call, the last call smaller."""
    calls = []

    def load(folder, dtype):
        def generate(chats, seeds, sampling):
            calls.append(len(chats))
            return [[r"\boxed{0}"] * sampling.samples for _ in chats]

        return generate

    monkeypatch.setitem(module.ENGINES, "transformers", generation.Engine(load, 4))
    entries = run()
    assert calls == [4, 2]
    assert entries[0]["correct"] == [3, 0, 0, 0, 0, 0]


def test_summary_is_avg_at_k_with_its_interval():
    entry = {"benchmark": "b", "samples": 2, "correct": [2, 1, 0, 1]}
    row = summary([entry]).iloc[0]
    assert row["Avg@k"] == 100 * avg_at_k([2, 1, 0, 1], 2) == 50.0
    half = 3.182446 * 40.824829 / 2  # t(3) times the standard error of (1, .5, 0, .5)
    assert row["high"] - row["Avg@k"] == pytest.approx(half, rel=1e-6)
    assert row["pass@k"] == 75.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "checkpoint='nosuch'"),
        (["MODEL", "--benchmarks", "sums"], "samples is missing"),
        (["MODEL", "--benchmarks", "sums,nosuch", "--samples", "1"], "benchmark 'nosuch'"),
        (["MODEL", "--samples", "one"], "--samples"),
        (["MODEL", "--benchmarks", "aime-2024", "--samples", "2"], ""),
    ],
)
def test_the_command(checkpoint, data, tmp_path, arguments, said):
    arguments = [str(checkpoint) if a == "MODEL" else a for a in arguments]
    options = ["--data", str(data), "--engine", "transformers", "--response-tokens", "4", "--output", "out"]
    command = [sys.executable, "-m", "asymlib", "evaluate", *arguments, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    if said:
        assert result.returncode == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
        assert not (tmp_path / "out").exists()
    else:
        assert result.returncode == 0, result.stderr
        assert "aime-2024" in result.stdout.splitlines()[-1]
        assert (tmp_path / "out" / "evaluation.json").is_file()
