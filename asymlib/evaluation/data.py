"""The paper's training and test problems as verl's parquet files, checked, decontaminated and recorded in `manifest.json`.

    <data>/train.parquet          MATH's training problems, less those that `dropped.json` lists
    <data>/<benchmark>.parquet    math-500, aime-2024, aime-2025, amc-2023, olympiadbench
    <data>/manifest.json          sources, template, sha256 of every file; written last: without it nothing is prepared

Each row has verl's columns: data_source (the file's name), prompt (a chat of one user message), ability, reward_model
{style, ground_truth}, extra_info {split, index}; index is the row's place in its source.
"""

import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..support.files import digest, write_atomically, write_json
from .decontamination import EXTRA, SIMILARITY, repeated
from .golds import IN_ORDER, gold
from .prompts import INSTRUCTION, MAX_PROMPT_TOKENS, PIECES, counter, prompt
from .sets import BENCHMARKS, DATASETS, Source

AGAIN = "delete the folder's manifest.json to prepare it again"


class Problem(NamedTuple):
    index: int
    text: str
    answer: str | None


def prepare(folder: Path, local: Path | None = None, report: Callable = print, tokenizer: str | None = None) -> dict[str, Any]:
    """Write the six files, `dropped.json` and `manifest.json` into `folder`, and return the manifest.

    Sources are downloaded, or read from `local`: a folder with a copy of each, named as in `DATASETS`, as .parquet, .jsonl or
    .json. `tokenizer`: the model's, a folder or an id of the hub, which counts the prompts' tokens; without it `PIECES` are
    counted. A folder that is prepared is verified instead. Everything is read and checked before the first byte is written.
    Raises ValueError for a missing source, other columns, another number of rows, a test problem without an answer, a prepared
    file that changed, a folder prepared by another recipe or tokenizer, and no such tokenizer.
    """
    folder = Path(folder)
    if (folder / "manifest.json").exists():
        manifest = verify(folder)
        if tokenizer and (counted := manifest["prompts"]["counted"]) != tokenizer:
            raise ValueError(f"--tokenizer {tokenizer}: {folder} was prepared with {counted}; {AGAIN}")
        report(f"{folder} is prepared: {len(manifest['files'])} files verified, nothing to do")
        return manifest
    tables, sources = _read_copies(Path(local)) if local else _download(report)
    problems = {name: _problems(name, rows) for name, rows in tables.items()}
    count = counter(tokenizer)
    problems["train"], dropped = decontaminate(problems["train"], {name: problems[name] for name in BENCHMARKS}, count)
    longest = {name: max(count(problem.text) for problem in rows) for name, rows in problems.items()}
    contents = {f"{name}.parquet": _parquet(name, rows) for name, rows in problems.items()}
    contents["dropped.json"] = json.dumps(dropped, indent=1).encode() + b"\n"
    manifest = {
        "recipe": _recipe(),
        "instruction": INSTRUCTION,
        "sources": sources,
        "prompts": {"limit": MAX_PROMPT_TOKENS, "counted": tokenizer or PIECES, "longest": longest},
        "rows_kept": {name: len(rows) for name, rows in problems.items()},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    write_json(folder / "manifest.json", manifest)
    _say(manifest, dropped, folder, report)
    return manifest


def _say(manifest: dict[str, Any], dropped: list[dict], folder: Path, report: Callable[[str], None]) -> None:
    for name, source in DATASETS.items():
        origin = manifest["sources"][name]
        place = f"local {origin['file']}, sha256 {origin['sha256'][:12]}" if "local" in origin else origin["hub"]
        report(f"{name}: {manifest['rows_kept'][name]} of {source.rows} problems, {place}; licence: {source.licence}")
    reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(row["reason"] for row in dropped).items())
    report(f"{len(dropped)} training problems dropped ({reasons or 'none'}), see {folder / 'dropped.json'}")
    _, counted, longest = manifest["prompts"].values()
    report(f"prompts counted by {counted}" + (" (exact: --tokenizer MODEL)" if counted == PIECES else ""))
    for name in BENCHMARKS:
        if longest[name] > MAX_PROMPT_TOKENS:
            report(f"{name}: its longest prompt counts {longest[name]}, more than {MAX_PROMPT_TOKENS}; kept")


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder, its files' checksums compared. Raises ValueError for the first that differs."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        files, recipe = manifest["files"], manifest.get("recipe")
    except FileNotFoundError:
        raise ValueError(f"{folder}: no manifest.json, so no prepared data; run: asymlib data prepare") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / 'manifest.json'}: cannot be read; {AGAIN}") from None
    if recipe != _recipe():
        raise ValueError(f"{folder}: prepared with other sources or another template than this version's; {AGAIN}")
    for path, recorded in ((folder / name, recorded) for name, recorded in files.items()):
        if not path.is_file() or digest(path) != recorded:
            raise ValueError(f"{path}: {'changed' if path.is_file() else 'missing'} since it was prepared; {AGAIN}")
    return manifest


def _recipe() -> str:
    """What defines the files besides the sources' content, as a digest."""
    table = Path(__file__).with_name("rewrites.yaml").read_text(encoding="utf-8")  # what golds and repeats are read by
    rules = [INSTRUCTION, IN_ORDER, SIMILARITY, EXTRA, MAX_PROMPT_TOKENS, list(DATASETS.items()), table]
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()


def _download(report: Callable[[str], None]) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    """Each set's rows, and where they are from."""
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
    return tables, {
        name: {key: getattr(s, key) for key in ("hub", "config", "split", "revision")} for name, s in DATASETS.items()
    }


def _read_copies(folder: Path) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    """Each set's rows, and which file they are from: a copy may differ from the hub's, so its own bytes are recorded."""
    found = {name: [p for s in (".parquet", ".jsonl", ".json") if (p := folder / (name + s)).is_file()] for name in DATASETS}
    missing = [f"{n}.jsonl ({s.hub}, {s.config}, split {s.split})" for n, s in DATASETS.items() if not found[n]]
    if missing:
        raise ValueError(f"--from {folder}: missing {'; '.join(missing)}; .json and .parquet will do as well")
    sources = {name: {"local": True, "file": path.name, "sha256": digest(path)} for name, (path, *_) in found.items()}
    return {name: _read_copy(path) for name, (path, *_) in found.items()}, sources


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


def _check_columns(name: str, columns: Iterable[str]) -> None:
    source = DATASETS[name]
    for column in (source.problem, source.answer):
        if column not in columns:
            raise ValueError(f"{name}: no column {column!r}, which {source.hub} has; columns: {', '.join(columns) or 'none'}")


def _problems(name: str, rows: list[dict]) -> list[Problem]:
    """The rows' problems and answers; all rows, so that an index is a place in the source."""
    source = DATASETS[name]
    if len(rows) != source.rows:
        extra = _extra_row(source, rows) if len(rows) == source.rows + 1 else ""
        raise ValueError(f"{name}: {len(rows)} rows, must be {source.rows} ({source.hub}, split {source.split}){extra}")
    problems = []
    for index, row in enumerate(rows):
        _check_columns(name, row)
        text = row[source.problem]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name}: row {index} has no problem text in column {source.problem!r}")
        answer = gold(row[source.answer], text, boxed=source.answer == "solution")
        if not answer and name != "train":
            raise ValueError(f"{name}: row {index} has no answer in column {source.answer!r}")
        problems.append(Problem(index, text.strip(), answer))
    return problems


def _extra_row(source: Source, rows: list[dict]) -> str:
    """Which row is one too many: a text that stands twice, or else the one without which the texts are the set's."""
    texts = [" ".join(str(row.get(source.problem)).split()) for row in rows]
    sums = [zlib.crc32(text.encode()) for text in texts]
    twice = [index for index, text in enumerate(texts) if text in texts[:index]]
    extra = twice or [index for index, one in enumerate(sums) if sum(sums) - one == source.texts]
    return f"; row {extra[0]} is extra: {texts[extra[0]][:60]!r}" if len(extra) == 1 else ""


def decontaminate(train: list[Problem], tests: dict[str, list[Problem]], count: Callable) -> tuple[list[Problem], list[dict]]:
    """Training problems to keep, and those dropped with the reason: no boxed answer, also a test problem, too long a prompt."""
    places = [(name, problem) for name, problems in tests.items() for problem in problems]
    found = repeated([problem.text for problem in train], [problem.text for _, problem in places])
    kept, dropped = [], []
    for row, problem in enumerate(train):
        if not problem.answer:
            reason = {"reason": "without a boxed answer"}
        elif row in found:
            name, test = places[found[row].test]
            reason = {"reason": "also a test problem", "test": name, "test_index": test.index}
            reason |= {"similarity": found[row].similarity, "test_problem": test.text}
        elif (length := count(problem.text)) > MAX_PROMPT_TOKENS:
            reason = {"reason": "too long a prompt", "tokens": length}
        else:
            kept.append(problem)
            continue
        dropped.append({"index": problem.index} | reason | {"problem": problem.text})
    return kept, dropped


def _parquet(name: str, problems: list[Problem]) -> bytes:
    rows = [
        {
            "data_source": name,
            "prompt": [{"role": "user", "content": prompt(problem.text)}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"split": "train" if name == "train" else "test", "index": problem.index},
        }
        for problem in problems
    ]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()
