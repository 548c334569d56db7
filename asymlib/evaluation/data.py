"""The paper's training and test problems as verl's parquet files, checked, decontaminated and recorded in `manifest.json`.

    <data>/train.parquet          MATH's training problems, less those that occur in a test set (`dropped.json` says which)
    <data>/<benchmark>.parquet    math-500, aime-2024, aime-2025, amc-2023, olympiadbench
    <data>/manifest.json          sources, template and sha256 of every file; written last: without it nothing is prepared

Each row has verl's columns: data_source (the file's name), prompt (a chat of one user message), ability, reward_model
{style, ground_truth}, extra_info {split, index}; index is the row's place in its source.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..runs.records import results_root
from ..support.files import write_atomically
from .reward import boxes, last_boxed

# Our choice, the paper does not state its template: Qwen's own words for mathematics, after the problem in the user's turn.
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_SEVERAL = re.compile(r"separated by|all (?:the )?possible|[Ff]ind all")  # the problem asks for more than one answer
NGRAM = 13  # words, as in GPT-3's check of its test sets (arXiv 2005.14165, Appendix C): our choice


class Source(NamedTuple):
    """Where a set is on the Hugging Face Hub, which columns hold problem and answer, and the paper's k of Avg@k."""

    hub: str
    config: str
    split: str
    revision: str
    rows: int
    problem: str
    answer: str  # a text, a number or a list of them; of a column named solution, the last box
    samples: int | None
    licence: str


_CONTEST = "the contest's problems (MAA): research and evaluation use only"
# The paper names the sets, not their copies: ids and revisions are our choice. Rows are what those revisions hold.
# fmt: off
DATASETS = {
    "train": Source("DigitalLearningGmbH/MATH-lighteval", "default", "train", "0530c78699ea5e8eb5530600900e1f328b48acad",
                    7500, "problem", "solution", None, "MIT"),
    "math-500": Source("HuggingFaceH4/MATH-500", "default", "test", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
                       500, "problem", "answer", 5, "MIT"),
    "aime-2024": Source("HuggingFaceH4/aime_2024", "default", "train", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
                        30, "problem", "answer", 10, _CONTEST),
    "aime-2025": Source("math-ai/aime25", "default", "test", "563bb8404243c5f09de6ec262f2db674fe5bce9b",
                        30, "problem", "answer", 10, _CONTEST),
    "amc-2023": Source("math-ai/amc23", "default", "test", "80815d37005feb82cd7f8fbc6901d5d3eff43057",
                       40, "question", "answer", 10, _CONTEST),
    "olympiadbench": Source("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", "91184b52131e7fc9455fef848035173aea8cc01a",
                            674, "question", "final_answer", 5, "CC BY-NC 4.0 (its authors'; the hub's card says Apache-2.0)"),
}
# fmt: on
BENCHMARKS = tuple(name for name, source in DATASETS.items() if source.samples)

_SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct({"split": pa.string(), "index": pa.int64()}),
    }
)


class Problem(NamedTuple):
    index: int
    text: str
    answer: str | None


def data_root(results: Path | None = None) -> Path:
    """Where prepared data lie: $ASYMLIB_DATA, else `data/` beside the results."""
    return Path(os.environ.get("ASYMLIB_DATA", (results or results_root()).resolve().parent / "data"))


def prepare(folder: Path, local: Path | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Write the six files, `dropped.json` and `manifest.json` into `folder`, and return the manifest.

    Sources are downloaded, or read from `local`: a folder with a copy of each, named as in `DATASETS`, as .parquet, .jsonl or
    .json. A folder that is prepared is verified instead, and nothing is written. Everything is read and checked before the
    first byte is written. Raises ValueError for a missing source, other columns, another number of rows, a test problem
    without an answer, a prepared file that changed, and a folder prepared by another recipe.
    """
    folder = Path(folder)
    if (folder / "manifest.json").exists():
        manifest = verify(folder)
        report(f"{folder} is prepared: {len(manifest['files'])} files verified, nothing to do")
        return manifest
    tables = _read_copies(Path(local)) if local else _download(report)
    problems = {name: _problems(name, rows) for name, rows in tables.items()}
    tests = {name: problems[name] for name in BENCHMARKS}
    problems["train"], dropped = decontaminate(problems["train"], tests)
    contents = {f"{name}.parquet": _parquet(name, rows) for name, rows in problems.items()}
    contents["dropped.json"] = json.dumps(dropped, indent=1).encode() + b"\n"
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    kept = {name: len(rows) for name, rows in problems.items()}
    manifest = _recipe() | {"rows_kept": kept, "files": files}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1).encode() + b"\n")
    for name, source in DATASETS.items():
        report(f"{name}: {kept[name]} of {source.rows} problems, {source.hub}; licence: {source.licence}")
    report(f"{len(dropped)} training problems dropped, see {folder / 'dropped.json'}")
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder, its files' checksums compared. Raises ValueError for the first that differs."""
    again = f"delete {folder / 'manifest.json'} to prepare it again"
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        files, recipe = manifest["files"], {key: manifest[key] for key in _recipe()}
    except FileNotFoundError:
        raise ValueError(f"{folder}: no manifest.json, so no prepared data; run: asymlib data prepare") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / 'manifest.json'}: cannot be read; {again}") from None
    if recipe != _recipe():
        raise ValueError(f"{folder}: prepared with other sources or another template than this version's; {again}")
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path}: {'changed' if path.is_file() else 'missing'} since it was prepared; {again}")
    return manifest


def _recipe() -> dict[str, Any]:
    """What defines the files besides the sources' content."""
    sources = {name: source._asdict() for name, source in DATASETS.items()}
    return {"sources": sources, "instruction": INSTRUCTION, "ngram": NGRAM}


def _download(report: Callable[[str], None]) -> dict[str, list[dict]]:
    import datasets
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries are no news; what failed is said once
    tables = {}
    for name, source in DATASETS.items():
        report(f"downloading {name}: {source.hub}, revision {source.revision[:7]}")
        try:
            table = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
        except OSError:
            raise ValueError(
                f"{name}: no download; put copies of the sets, with the hub's columns, into one folder as "
                f"{', '.join(f'{n}.jsonl' for n in DATASETS)}; add --from FOLDER"
            ) from None
        _check_columns(name, table.column_names)
        tables[name] = table.select_columns([source.problem, source.answer]).to_list()
    return tables


def _read_copies(folder: Path) -> dict[str, list[dict]]:
    found = {name: [p for s in (".parquet", ".jsonl", ".json") if (p := folder / (name + s)).is_file()] for name in DATASETS}
    missing = [f"{n}.jsonl ({s.hub}, {s.config}, split {s.split})" for n, s in DATASETS.items() if not found[n]]
    if missing:
        raise ValueError(f"--from {folder}: missing {'; '.join(missing)}; .json and .parquet will do as well")
    return {name: _read_copy(paths[0]) for name, paths in found.items()}


def _read_copy(path: Path) -> list[dict]:
    """Rows of a file as they are: no reader that would take '033' for a number."""
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, pa.ArrowException) as error:  # JSON and Unicode errors are ValueErrors
        raise ValueError(f"{path}: not {path.suffix[1:]} ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: must be a list of objects, one a problem")
    return rows


def _check_columns(name: str, columns: list[str]) -> None:
    source = DATASETS[name]
    for column in (source.problem, source.answer):
        if column not in columns:
            raise ValueError(f"{name}: no column {column!r}, which {source.hub} has; columns: {', '.join(columns) or 'none'}")


def _problems(name: str, rows: list[dict]) -> list[Problem]:
    """The rows' problems and answers; all rows, so that an index is a place in the source."""
    source = DATASETS[name]
    if len(rows) != source.rows:
        raise ValueError(f"{name}: {len(rows)} rows, must be {source.rows} ({source.hub}, split {source.split})")
    problems = []
    for index, row in enumerate(rows):
        _check_columns(name, list(row))
        text, answer = row[source.problem], _answer(row[source.answer], boxed=source.answer == "solution")
        if source.answer == "solution" and answer and _SEVERAL.search(str(text)):  # MATH boxes them one by one
            answer = ", ".join(dict.fromkeys(box for _, _, box in reversed(list(boxes(row[source.answer])))))
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name}: row {index} has no problem text in column {source.problem!r}")
        if not answer and name != "train":
            raise ValueError(f"{name}: row {index} has no answer in column {source.answer!r}")
        problems.append(Problem(index, text.strip(), answer))
    return problems


def _answer(value: Any, boxed: bool) -> str | None:
    if isinstance(value, list):  # OlympiadBench: several answers of one problem
        return ", ".join(filter(None, (_answer(part, boxed) for part in value)))
    if isinstance(value, float) and value.is_integer():  # AMC 2023: 27.0
        value = int(value)
    if value is None:
        return None
    return last_boxed(str(value)) if boxed else str(value).strip()


def decontaminate(train: list[Problem], tests: dict[str, list[Problem]]) -> tuple[list[Problem], list[dict[str, Any]]]:
    """Training problems to keep, and the dropped ones with the reason.

    Dropped: a problem without a boxed answer, with the text of a test problem (case, spaces, dollars and LaTeX's sizes and
    spacing aside), or with `NGRAM` words in a row in common with one (punctuation aside).
    """
    texts, ngrams = {}, {}
    for name, problems in tests.items():
        for problem in problems:
            texts.setdefault(_normalised(problem.text), (name, problem.index))
            for ngram in _ngrams(problem.text):
                ngrams.setdefault(ngram, (name, problem.index))
    kept, dropped = [], []
    for problem in train:
        common = next((ngram for ngram in _ngrams(problem.text) if ngram in ngrams), None)
        if not problem.answer:
            reason = {"reason": "no boxed answer"}
        elif found := texts.get(_normalised(problem.text)):
            reason = {"reason": "same text", "test": found[0], "test_index": found[1]}
        elif common:
            name, index = ngrams[common]
            reason = {"reason": f"{NGRAM} words in common", "test": name, "test_index": index, "words": " ".join(common)}
        else:
            kept.append(problem)
            continue
        dropped.append({"index": problem.index} | reason | {"problem": problem.text})
    return kept, dropped


def _normalised(text: str) -> str:
    return re.sub(r"\\left|\\right|\\[,;!: ]|[\s$~]", "", re.sub(r"\\[dt]frac", r"\\frac", text)).lower()


def _ngrams(text: str) -> list[tuple[str, ...]]:
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


def _parquet(name: str, problems: list[Problem]) -> bytes:
    rows = [
        {
            "data_source": name,
            "prompt": [{"role": "user", "content": f"{problem.text}\n{INSTRUCTION}"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"split": "train" if name == "train" else "test", "index": problem.index},
        }
        for problem in problems
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
    return sink.getvalue().to_pybytes()
