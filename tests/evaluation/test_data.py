"""Preparing the data from copies with the hubs' schemas (`hub/`: invented problems, every column of the hub)."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asymlib.evaluation import data
from asymlib.evaluation.data import Problem, decontaminate, prepare, verify
from asymlib.evaluation.prompts import INSTRUCTION, counter
from asymlib.evaluation.sets import BENCHMARKS, DATASETS


def rows_of(folder: Path, name: str) -> list[dict]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_the_table_has_the_papers_sets():
    assert {name: source.rows for name, source in DATASETS.items()} == {
        "train": 7500, "math-500": 500, "aime-2024": 30, "aime-2025": 30, "amc-2023": 40, "olympiadbench": 674,
    }  # fmt: skip
    assert {name: DATASETS[name].samples for name in BENCHMARKS} == {
        "math-500": 5, "aime-2024": 10, "aime-2025": 10, "amc-2023": 10, "olympiadbench": 5,
    }  # fmt: skip
    assert all(len(source.revision) == 40 and source.licence for source in DATASETS.values())


def test_rows_are_verls(prepared, hub_rows):
    first = rows_of(prepared, "train")[0]
    problem = hub_rows("train")[0]["problem"]
    assert first == {
        "data_source": "train",
        "prompt": [{"role": "user", "content": f"{problem}\n{INSTRUCTION}"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": r"\frac{55}{2}"},
        "extra_info": {"split": "train", "index": 0},
    }
    schemas = {pq.read_schema(prepared / f"{name}.parquet") for name in DATASETS}
    assert len(schemas) == 1  # verl concatenates the validation files
    assert rows_of(prepared, "amc-2023")[39]["extra_info"] == {"split": "test", "index": 39}


@pytest.mark.parametrize(
    ("name", "row", "truth"),
    [
        ("train", 1, "2"),  # the last of two boxes
        ("train", 2, "8"),  # \boxed 8$; three rows before it are dropped
        ("aime-2024", 0, "024"),
        ("aime-2025", 0, "21"),
        ("amc-2023", 0, "27"),  # a float on the hub
        ("olympiadbench", 0, "$2,-2$"),
        ("olympiadbench", 1, r"$\frac{1}{2}$, $1$"),
    ],
)
def test_answers_are_read_as_the_hubs_write_them(prepared, name, row, truth):
    assert rows_of(prepared, name)[row]["reward_model"]["ground_truth"] == truth


def test_every_prepared_answer_is_right_by_the_reward(prepared):
    from asymlib.evaluation.reward import compute_score

    for name in DATASETS:
        for row in rows_of(prepared, name)[:4]:
            truth = row["reward_model"]["ground_truth"]
            assert compute_score(name, f"so $\\boxed{{{truth.replace('$', '')}}}$", truth) == 1.0


def test_leaked_and_unanswered_training_problems_are_dropped_and_reported(prepared, hub_rows):
    dropped = json.loads((prepared / "dropped.json").read_text())
    rows = hub_rows("train")
    assert [(d["index"], d["reason"], d.get("test"), d.get("test_index"), d.get("similarity")) for d in dropped] == [
        (2, "also a test problem", "math-500", 1, 89.8),
        (3, "also a test problem", "math-500", 0, 100.0),
        (4, "without a boxed answer", None, None, None),
    ]
    assert dropped[0]["test_problem"] == hub_rows("math-500")[1]["problem"]
    assert [d["problem"] for d in dropped] == [rows[i]["problem"] for i in (2, 3, 4)]
    kept = [row["extra_info"]["index"] for row in rows_of(prepared, "train")]
    assert kept == [i for i in range(7500) if i not in (2, 3, 4)]


def test_a_prompt_that_is_too_long_is_dropped_with_its_count():
    problems = [Problem(7, "Add " + "1 + " * 800 + "1.", "801"), Problem(8, "What is $1+1$?", "2")]
    kept, dropped = decontaminate(problems, {"aime-2024": [Problem(0, "other", "1")]}, counter(None))
    assert kept == problems[1:]
    assert [(d["index"], d["reason"], d["tokens"] > 1536) for d in dropped] == [(7, "too long a prompt", True)]


def test_a_tokenizer_decides_which_prompt_is_too_long(copies, tmp_path, monkeypatch):
    """tests/real has those of Qwen; here a small one, whose word for every sign makes the longest problem's count known."""
    from tiny_chat import tokenizer

    tokenizer().save_pretrained(tmp_path / "model")
    said = []
    manifest = prepare(tmp_path / "data", copies, report=said.append, tokenizer=str(tmp_path / "model"))
    assert manifest["prompts"]["counted"] == str(tmp_path / "model")
    assert not any("exact" in line for line in said)
    prepare(tmp_path / "data", tokenizer=str(tmp_path / "model"))
    with pytest.raises(ValueError, match="was prepared with"):
        prepare(tmp_path / "data", tokenizer="another")


def test_no_tokenizer_gets_one_sentence(copies, tmp_path):
    with pytest.raises(ValueError, match="--tokenizer nowhere/none: no tokenizer"):
        prepare(tmp_path / "data", copies, report=lambda line: None, tokenizer="nowhere/none")
    assert not (tmp_path / "data").exists()


def test_a_second_call_verifies_and_writes_nothing(prepared):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in prepared.iterdir()}
    said = []
    prepare(prepared, report=said.append)  # neither hub nor copies are needed
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in prepared.iterdir()} == before
    assert len(said) == 1 and "7 files verified" in said[0]


def test_the_same_copies_give_the_same_bytes(copies, prepared, tmp_path):
    prepare(tmp_path, copies, report=lambda line: None)
    assert (tmp_path / "manifest.json").read_bytes() == (prepared / "manifest.json").read_bytes()


def test_the_manifest_names_sources_and_checksums(prepared, copies):
    manifest = json.loads((prepared / "manifest.json").read_text())
    digest = hashlib.sha256((copies / "math-500.jsonl").read_bytes()).hexdigest()
    assert manifest["sources"]["math-500"] == {
        "local": True,
        "file": "math-500.jsonl",
        "sha256": digest,
    }  # not the hub's
    assert manifest["rows_kept"] == {name: s.rows for name, s in DATASETS.items()} | {"train": 7497}
    assert set(manifest["files"]) == {*(f"{name}.parquet" for name in DATASETS), "dropped.json"}
    assert manifest["instruction"] == INSTRUCTION


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "aime-2024.parquet").write_bytes(b"other"), "aime-2024.parquet: changed since"),
        (lambda folder: (folder / "dropped.json").unlink(), "dropped.json: missing since"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    ],
)
def test_verify_names_what_is_wrong(prepared, tmp_path, spoil, said):
    for path in prepared.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path)
    with pytest.raises(ValueError, match=said):
        verify(tmp_path)


def test_data_of_another_recipe_are_refused(prepared, monkeypatch):
    monkeypatch.setattr(data, "INSTRUCTION", "Answer in a word.")
    with pytest.raises(ValueError, match="prepared with other sources or another template"):
        verify(prepared)


def without(rows: list[dict], column: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key != column} for row in rows]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("math-500", lambda rows: rows[:-1], "math-500: 499 rows, must be 500"),
        ("aime-2025", lambda rows: rows + rows[:1], "aime-2025: 31 rows, must be 30 .* row 30 is extra"),
        ("amc-2023", lambda rows: without(rows, "question"), "amc-2023: no column 'question'"),
        ("amc-2023", lambda rows: [row | {"answer": None} for row in rows], "amc-2023: row 0 has no answer"),
        ("olympiadbench", lambda rows: [*rows[:3], rows[3] | {"final_answer": []}, *rows[4:]], "row 3 has no answer"),
        ("train", lambda rows: [rows[0] | {"problem": " "}, *rows[1:]], "train: row 0 has no problem text"),
        ("train", lambda rows: [1] * 7500, "must be a list of objects"),
    ],
)
def test_a_wrong_copy_is_refused_and_nothing_is_written(copies, tmp_path, name, change, said):
    wrong = tmp_path / "copies"
    wrong.mkdir()
    for path in copies.iterdir():
        (wrong / path.name).symlink_to(path)
    (wrong / f"{name}.jsonl").unlink()
    rows = [json.loads(line) for line in (copies / f"{name}.jsonl").read_text().splitlines()]
    (wrong / f"{name}.json").write_text(json.dumps(change(rows)))
    with pytest.raises(ValueError, match=said):
        prepare(tmp_path / "data", wrong, report=lambda line: None)
    assert not (tmp_path / "data").exists()


def test_copies_may_be_parquet_and_answers_stay_text(copies, prepared, tmp_path):
    for path in copies.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "aime-2024.jsonl").unlink()
    rows = [json.loads(line) for line in (copies / "aime-2024.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "aime-2024.parquet")
    prepare(tmp_path / "data", tmp_path, report=lambda line: None)
    assert rows_of(tmp_path / "data", "aime-2024") == rows_of(prepared, "aime-2024")


def test_a_hub_table_is_taken_by_its_columns(copies, prepared, tmp_path, monkeypatch):
    """The download path with `datasets` itself, its hub replaced by the copies."""
    import datasets

    asked = {}

    def load_dataset(hub, config, split, revision):
        name = next(name for name, source in DATASETS.items() if source.hub == hub)
        asked[name] = (config, split, revision)
        return datasets.Dataset.from_json(str(copies / f"{name}.jsonl"), cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    prepare(tmp_path / "data", report=lambda line: None)
    assert asked == {name: (s.config, s.split, s.revision) for name, s in DATASETS.items()}
    recorded = verify(tmp_path / "data")["sources"]["math-500"]
    assert (recorded["hub"], recorded["revision"]) == ("HuggingFaceH4/MATH-500", DATASETS["math-500"].revision)
    for name in DATASETS:
        assert rows_of(tmp_path / "data", name) == rows_of(prepared, name)


def test_verl_reads_the_prepared_prompts(prepared):
    """verl's own data set class renders the chat and hands on what the reward needs."""
    rl_dataset = pytest.importorskip("verl.utils.dataset.rl_dataset")
    from omegaconf import OmegaConf
    from tiny_chat import tokenizer

    config = OmegaConf.create({"max_prompt_length": 512, "filter_overlong_prompts": False, "prompt_key": "prompt"})
    files = [str(prepared / "math-500.parquet"), str(prepared / "olympiadbench.parquet")]
    dataset = rl_dataset.RLHFDataset(data_files=files, tokenizer=tokenizer(), config=config)
    assert len(dataset) == 500 + 674
    row = dataset[500]
    assert row["data_source"] == "olympiadbench"
    assert row["reward_model"]["ground_truth"] == "$2,-2$"
    assert row["raw_prompt"][0]["content"].endswith(INSTRUCTION)


def test_a_killed_preparation_is_no_result_and_is_done_again(copies, tmp_path, monkeypatch):
    def die(path, content):
        if path.name == "olympiadbench.parquet":
            raise KeyboardInterrupt
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(data, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, copies, report=lambda line: None)
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        verify(tmp_path)
    prepare(tmp_path, copies, report=lambda line: None)
    verify(tmp_path)
