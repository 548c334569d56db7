"""A checkpoint sampled on benchmarks: Avg@k as the paper evaluates, problem by problem, and resumable.

    <output>/<benchmark>.jsonl   settings in the first line, then one line a finished problem: index, rewards, responses
    <output>/evaluation.json     one entry a finished benchmark, as in a run record (`RunRecord.evaluation`)

The settings are all that defines the samples of a benchmark, sha256 of problems and weights included; an evaluation goes on
only under equal ones. Each problem has a seed of its own, so the transformers engine gives a resumed evaluation the samples of
an undisturbed one. vLLM's sums depend on what shares a batch, so with it single samples may differ.
"""

import hashlib
import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from ..analysis.statistics import mean_interval, pass_at_k
from ..runs.records import results_root
from ..support.files import named_folder, write_atomically
from ..support.messages import near_names, refuse_unknown
from ..support.patience import PATIENCE, within
from .generation import DTYPES, ENGINES, Chat, Generate, Sampling
from .sets import BENCHMARKS, DATASETS, data_root

TEMPERATURE = 0.4  # paper, Section 4
RESPONSE_TOKENS = {"qwen2": 2560, "qwen3": 4096}  # paper, Appendix C: of Qwen2.5-Math-1.5B and Qwen3-4B, by model_type
# Where compute_score is, by data_source up to its first hyphen; asymlib.evaluation.reward otherwise.
SCORES = {"walk": "asymlib.lab.export", "countdown": "asymlib.lab.export"}


def evaluate(
    checkpoint: str | Path,
    benchmarks: Sequence[str] = BENCHMARKS,
    samples: int | None = None,
    engine: str | None = None,
    output: Path | None = None,
    *,
    data: Path | None = None,
    response_tokens: int | None = None,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    dtype: str | None = None,
    label: str | None = None,
    patience: int = PATIENCE,
    report: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Sample `checkpoint` (a Hugging Face folder or id, or verl's that holds one) on `benchmarks`; one entry a benchmark.

    An entry has the keys of a run record's evaluation: benchmark, checkpoint (`label`, else the checkpoint as given), step (of
    a folder global_step_<n>, else None), temperature, samples, and correct: how many of `samples` were right, per problem.

    `samples` is k of Avg@k; the paper's 5 or 10 if None. `engine`: vllm where it is installed, else transformers. `output`:
    below results/evaluations if None. `data` has a <benchmark>.parquet in verl's columns for each. `response_tokens`: the
    paper's for its two models if None. `dtype` of the weights: the checkpoint's own if None. Raises ValueError, before any
    sampling, for what cannot be evaluated, for an output of other settings, and while another process writes to it; and
    SilenceError for an engine that takes more than `patience` seconds to load, or for a problem (vLLM: for 128 of them).
    """
    given, output = str(checkpoint), output_folder(checkpoint) if output is None else output
    folder, data = _weights_folder(given), data_root() if data is None else named_folder(data, "data")
    check_request(benchmarks, samples, engine, response_tokens, output, temperature, seed, dtype)
    _whole("patience", patience, 1)
    engine, problems = _engine(engine), {name: read_benchmark(data, name) for name in dict.fromkeys(benchmarks)}
    weights = _digest(*sorted(Path(folder).glob("*.safetensors"))) if Path(folder).is_dir() else folder
    common = {"weights": weights, "engine": engine, "seed": seed, "temperature": float(temperature)}
    own = {name: {"benchmark": name, "samples": _samples(name, samples, temperature)} for name in problems}
    common |= _of_the_model(folder, response_tokens, dtype)
    wanted = {name: own[name] | {"problems": _digest(data / f"{name}.parquet")} | common for name in problems}
    step = re.search(r"global_step_(\d+)", given)
    identity = {"checkpoint": label or given, "step": int(step[1]) if step else None, "temperature": float(temperature)}
    return _entries(folder, problems, wanted, identity, Path(output), patience, report)


def check_request(
    benchmarks: Sequence[str],
    samples: int | None,
    engine: str | None,
    response_tokens: int | None,
    output: str | Path,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    dtype: str | None = None,
) -> None:
    """Raise ValueError for what is wrong whatever the checkpoint is; arguments as `evaluate`'s."""
    if not benchmarks or isinstance(benchmarks, str):
        must = "must be a list of names" if benchmarks else "name at least one"
        raise ValueError(f"benchmarks={benchmarks!r}: {must}; the paper's are {', '.join(BENCHMARKS)}")
    _engine(engine)
    if not 0 <= temperature <= 2:
        raise ValueError(f"temperature={temperature!r}: must lie in 0..2")
    for name, value in (("samples", samples), ("response_tokens", response_tokens)):
        if value is not None:
            _whole(name, value, 1)
    _whole("seed", seed, 0)
    refuse_unknown("dtype", [] if dtype is None else [dtype], DTYPES)
    named_folder(str(output), "output")


def _entries(folder, problems, wanted, identity, output: Path, patience: int, report) -> list[dict[str, Any]]:
    """One entry a benchmark, written as soon as it is known, while no other process writes to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    load = cache(lambda engine, dtype: _load(ENGINES[engine].load, folder, dtype))  # when the first problem is left
    try:
        with FileLock(output / ".evaluate.lock", timeout=0):
            finished = {name: _read_finished(output / f"{name}.jsonl", settings) for name, settings in wanted.items()}
            entries = []
            for name, settings in wanted.items():
                rows, rewards = problems[name], finished[name]
                _finish(load, rows, rewards, settings, output / f"{name}.jsonl", patience, report)
                correct = [round(sum(rewards[index])) for index in range(len(rows))]
                entries.append({"benchmark": name} | identity | {"samples": settings["samples"], "correct": correct})
                _write_entries(output / "evaluation.json", entries)
            return entries
    except Timeout:
        raise ValueError(f"output={str(output)!r}: another evaluation is writing to it") from None


def output_folder(checkpoint: str | Path) -> Path:
    """Where an evaluation of `checkpoint` goes unless told otherwise: a folder of its name below results/evaluations."""
    return results_root() / "evaluations" / re.sub(r"[^\w.-]+", "-", str(checkpoint)).strip("-.")


def _finish(load, rows, rewards: dict[int, list[float]], settings: dict[str, Any], path: Path, patience: int, report) -> None:
    """Sample and score the problems that have no `rewards` yet; a whole line is appended for each as soon as it is known."""
    left, size = [index for index in range(len(rows)) if index not in rewards], ENGINES[settings["engine"]].problems
    sampling = Sampling(*map(settings.get, Sampling._fields))
    with path.open("a") as file, ThreadPoolExecutor(4) as pool:
        for some in (left[at : at + size] for at in range(0, len(left), size)):
            chats, seeds = [rows[index]["prompt"] for index in some], [_seed(settings, index) for index in some]
            silence = f"{path}: {len(rewards)} of {len(rows)} problems are done, and nothing came from {settings['engine']}"
            with within(patience, silence):
                generate = load(settings["engine"], settings["dtype"])
            for index, responses in zip(some, _sampled(generate, chats, seeds, sampling, patience, silence), strict=True):
                rewards[index] = list(pool.map(_score, [rows[index]] * len(responses), responses))
                file.write(json.dumps({"index": index, "rewards": rewards[index], "responses": responses}) + "\n")
                file.flush()
            if size > 1 or len(rewards) % max(1, len(rows) // 10) == 0:
                report(f"{settings['benchmark']}: {len(rewards)} of {len(rows)} problems")


def _sampled(
    generate: Generate, chats: list[Chat], seeds: list[int], sampling: Sampling, patience: int, silence: str
) -> Iterator[list[str]]:
    with within(patience, silence):
        sampled = iter(generate(chats, seeds, sampling))
    while True:
        with within(patience, silence):
            responses = next(sampled, None)
        if responses is None:
            return
        yield responses


def _seed(settings: dict[str, Any], index: int) -> int:
    digest = hashlib.sha256(f"{settings['seed']} {settings['benchmark']} {index}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1  # 31 bits: every generator takes that


def _score(row: dict[str, Any], response: str) -> float:
    source = row["data_source"]
    module = importlib.import_module(SCORES.get(source.split("-")[0], "asymlib.evaluation.reward"))
    return float(module.compute_score(source, response, row["reward_model"]["ground_truth"]))


def _load(load: Callable[..., Any], folder: str, *more: str | None) -> Any:
    try:
        return load(folder, *more)
    except OSError as error:
        raise ValueError(f"checkpoint={folder!r}: cannot be loaded: {str(error).splitlines()[0]}") from None


def _weights_folder(checkpoint: str) -> str:
    path = Path(checkpoint)
    if not path.is_dir():
        if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint):
            raise ValueError(f"checkpoint={checkpoint!r}: must be a folder or a Hugging Face id such as Qwen/Qwen3-4B")
        return checkpoint
    for folder in (path, path / "huggingface", path / "actor" / "huggingface"):
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return str(folder)
    actor = path / "actor" if (path / "actor").is_dir() else path
    raise ValueError(
        f"checkpoint={checkpoint!r}: no config.json with *.safetensors in it; sharded weights of verl are merged by: "
        f"python -m verl.model_merger merge --backend fsdp --local_dir {actor} --target_dir FOLDER"
    )


def _engine(engine: str | None) -> str:
    installed = bool(importlib.util.find_spec("vllm"))
    refuse_unknown("engine", filter(None, [engine]), ENGINES)
    if engine == "vllm" and not installed:
        raise ValueError("engine='vllm': vllm is not installed; install asymlib[h100] or take the engine transformers")
    return engine or ("vllm" if installed else "transformers")


def _of_the_model(folder: str, tokens: int | None, dtype: str | None) -> dict[str, Any]:
    """Response tokens and dtype; the model's own where they are None."""
    from transformers import AutoConfig

    config = _load(AutoConfig.from_pretrained, folder)
    if tokens is None and config.model_type not in RESPONSE_TOKENS:
        raise ValueError(f"response_tokens is missing: the paper has no model of type {config.model_type!r}")
    own = str(config.dtype or "float32").removeprefix("torch.")
    return {"response_tokens": tokens or RESPONSE_TOKENS[config.model_type], "dtype": dtype or own}


def _samples(benchmark: str, samples: int | None, temperature: float) -> int:
    if samples is None and benchmark not in DATASETS:
        raise ValueError(f"samples is missing: {benchmark!r} is not one of the paper's benchmarks ({', '.join(BENCHMARKS)})")
    k = DATASETS[benchmark].samples if samples is None else _whole("samples", samples, 1)
    if k is None or (k > 1 and not temperature):
        raise ValueError(f"samples={k!r}: must be at least 1, and 1 at temperature 0")
    return k


def _whole(name: str, value: int, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}, below 2^63")
    return value


def read_benchmark(data: Path, name: str) -> list[dict[str, Any]]:
    """The rows of `<data>/<name>.parquet`. Raises ValueError if there is none, or its columns are not verl's."""
    path = data / f"{name}.parquet"
    if not path.is_file():
        there = sorted(p.stem for p in data.glob("*.parquet")) if data.is_dir() else []
        hint = near_names(name, there) if there else "nothing is prepared there; run: asymlib data prepare"
        raise ValueError(f"benchmark {name!r}: {path} does not exist; {hint}")
    rows = pd.read_parquet(path).to_dict("records")
    missing = {"data_source", "prompt", "reward_model"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"{path}: no column {sorted(missing)[0]!r}; it must have verl's columns")
    return [row | {"prompt": [dict(message) for message in row["prompt"]]} for row in rows]


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _read_finished(path: Path, settings: dict[str, Any]) -> dict[int, list[float]]:
    """Rewards of the problems that earlier calls finished, by index. A new file gets its first line, a cut last line goes."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    try:
        header, *lines = [json.loads(line) for line in whole.splitlines()] or [settings]
        finished = {line["index"]: line["rewards"] for line in lines}
        other = next((f"{key}={header[key]!r}, not {value!r}" for key, value in settings.items() if header[key] != value), None)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: cannot be read; delete it to evaluate {settings['benchmark']} again") from None
    if other:
        raise ValueError(f"{path}: written with {other}; choose another output or delete it")
    if not whole or whole != text:
        write_atomically(path, (whole or json.dumps(header) + "\n").encode())
    return finished


def _write_entries(path: Path, entries: list[dict[str, Any]]) -> None:
    """Those of this call, and what other calls found on other benchmarks."""
    earlier = json.loads(path.read_bytes()) if path.exists() else []
    merged = {entry["benchmark"]: entry for entry in [*earlier, *entries]}
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in merged.values())
    write_atomically(path, f"[\n{lines}\n]\n".encode())


def summary(entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a benchmark, in percent: Avg@k with its 95% interval over problems, and pass@k."""
    rows = []
    for entry in entries:
        correct, k = entry["correct"], entry["samples"]
        mean, low, high, problems = mean_interval([count / k for count in correct])
        percent = {"Avg@k": 100 * mean, "low": 100 * low, "high": 100 * high, "pass@k": 100 * pass_at_k(correct, k, k)}
        rows.append({"benchmark": entry["benchmark"], "problems": problems, "k": k} | percent)
    return pd.DataFrame(rows)
