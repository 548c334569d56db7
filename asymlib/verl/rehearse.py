"""A rehearsal: a few steps of a run as it would be launched, cut off and resumed, and what the whole run takes by them.

Only numbers of prompts, steps and problems are smaller; on a CPU a stand-in takes the model's place too (cpu/standin.py).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluation.prompts import prompt
from ..evaluation.sets import BENCHMARKS, DATASETS
from ..runs.records import RunRecord
from ..runs.spec import ExperimentSpec, make_spec

STEPS, CUT_OFF_AFTER = 3, 2
CPU_STEPS = 6  # a stand-in's step is shorter than the end of its processes, and some must be left for the resumed run
PART_OF_A_BATCH = 4  # a step has a quarter of the run's prompts
CPU_PROMPTS, CPU_RESPONSE_TOKENS = 4, 32
PROBLEMS = {"train": 400, "benchmark": 4}  # the training set has more than any rehearsal asks for
CHECKPOINTS = 3  # the best, the last and the one being written
MEMORY = (
    "Memory short? One after the other: --override actor_rollout_ref.rollout.gpu_memory_utilization=0.4; "
    "--override actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192; "
    "--override actor_rollout_ref.actor.fsdp_config.param_offload=true and ...optimizer_offload=true. "
    "Not LoRA: a checkpoint of it cannot be evaluated here."
)


def shortened(spec: ExperimentSpec, on_cpu: bool) -> ExperimentSpec:
    """The run that is rehearsed: the spec with fewer steps and prompts, as many mini-batches a step, on a CPU short responses.

    The increment is measured at each step, and the projection counts it as often as the run has it.
    """
    minibatches = spec.prompts_per_step // spec.prompts_per_minibatch
    wanted = CPU_PROMPTS if on_cpu else spec.prompts_per_step // PART_OF_A_BATCH
    minibatch = max(1, wanted // minibatches)
    steps = CPU_STEPS if on_cpu else STEPS
    fields = spec.model_dump() | {"steps": steps, "validation_every": CUT_OFF_AFTER, "increment_every": 1}
    fields |= {"prompts_per_minibatch": minibatch, "prompts_per_step": minibatch * minibatches}
    fields["max_response_tokens"] = CPU_RESPONSE_TOKENS if on_cpu else spec.max_response_tokens
    return make_spec(**fields)


def cut_data(source: Path, target: Path, tokens: Any = None) -> str:
    """Write a few problems of each set into `target` and return what they are: every n-th of `source`'s, or made-up sums.

    `tokens`: the stand-in's tokenizer; with it problems are of the shortest quarter (a prompt's logits take a CPU seconds),
    and their answers are digits that the stand-in can say.
    """
    target.mkdir(parents=True, exist_ok=True)
    prepared = (source / "manifest.json").is_file()
    for name in ("train", *BENCHMARKS):
        rows = pq.read_table(source / f"{name}.parquet").to_pylist() if prepared else _sums(name)
        count = PROBLEMS.get(name, PROBLEMS["benchmark"]) if tokens is not None or name != "train" else len(rows)
        if tokens is not None:
            by_length = sorted(rows, key=lambda row: len(tokens(row["prompt"][0]["content"])["input_ids"]))
            rows = by_length[: max(count, len(rows) // 4)]
        rows = rows[:: max(1, len(rows) // count)][:count]
        if tokens is not None:
            rows = [row | {"reward_model": {"style": "rule", "ground_truth": str(i % 3)}} for i, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(rows), target / f"{name}.parquet")
    return "the prepared sets, cut" if prepared else "made-up sums in the sets' columns"


def _sums(name: str) -> list[dict]:
    return [
        {
            "data_source": name,
            "prompt": [{"role": "user", "content": prompt(f"What is {i} + {i % 7}?")}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(i + i % 7)},
            "extra_info": {"split": name, "index": i},
        }
        for i in range(PROBLEMS["train"])
    ]


def measure(
    record: RunRecord,
    seconds: dict[str, float],
    memory: dict[str, float],
    later: dict[str, float],
    checkpoint: float,
    gpus: int,
) -> dict[str, Any]:
    """What a finished rehearsal tells, as JSON.

    Only the caller sees `seconds`, the most gigabytes of memory until the cut (`memory`) and after it (`later`), and those of
    a `checkpoint`. A step is the one before the cut: the first of each attempt also warms up. Raises RuntimeError where a part
    did not happen.
    """
    lines, provenance, steps = record.metrics.set_index("step"), record.provenance, record.spec.steps
    if lines.index.tolist() != list(range(1, steps + 1)) or not provenance["earlier_attempts"]:
        raise RuntimeError(f"{record.folder}: the run was not cut off and resumed; delete the folder and rehearse again")
    step = lines.loc[CUT_OFF_AFTER]
    parts = {
        name: float(step[f"seconds_{name}"]) for name in ("rollout", "update", "increment", "checkpoint", "validation", "step")
    }
    policy = lines.memory.max() if "memory" in lines else None
    return {
        "seconds": {
            name: round(value, 2) for name, value in (seconds | parts | provenance["seconds"]).items() if value == value
        },
        "tokens": int(step.tokens),
        "response_length": float(lines.response_length.mean()),
        "reward_at_start": float(lines.reward.iloc[0]),
        "rollout_log_prob_gap": float(lines.rollout_log_prob_gap.max()),
        "rollout_log_prob_gap_mean": float(lines.rollout_log_prob_gap_mean.max()),
        "policy_gigabytes": None if pd.isna(policy) else float(policy),
        "memory_gigabytes": {name: round(value, 2) for name, value in memory.items()},
        "later_gigabytes": {name: round(value, 2) for name, value in later.items()},
        "checkpoint_gigabytes": checkpoint,
        "kept_gigabytes": gigabytes(record.folder / "checkpoints"),
        "sample_gigabytes": gigabytes(record.folder / "samples" / "train") / steps,
        "gpus": gpus,
        "stand_in": provenance.get("stand_in"),
    }


def gigabytes(folder: Path) -> float:
    """Of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


class Projection(NamedTuple):
    """Of a whole run: hours where responses keep their length and where all are as long as allowed, GPU-hours of the first."""

    hours: float
    most_hours: float
    gpu_hours: float
    dollars: float
    disk: float  # GB while it trains
    kept: float  # GB after it: the best checkpoint's weights and the responses


def project(spec: ExperimentSpec, short: ExperimentSpec, measured: dict[str, Any], dollars_per_gpu_hour: float) -> Projection:
    """What `spec` takes by what its rehearsal `short` measured; its page says how."""
    longest = spec.max_response_tokens / measured["response_length"]
    hours, most = (_hours(spec, short, measured, stretch) for stretch in (1.0, longest))
    steps = spec.steps * spec.prompts_per_step / short.prompts_per_step
    samples = steps * measured["sample_gigabytes"]
    disk, kept = (samples + CHECKPOINTS * measured["checkpoint_gigabytes"], samples + measured["kept_gigabytes"])
    gpu_hours = hours * measured["gpus"]
    return Projection(hours, max(hours, most), gpu_hours, gpu_hours * dollars_per_gpu_hour, disk, kept)


def together(runs: list[Projection]) -> Projection:
    """Runs one after the other: each leaves what it keeps, and the largest needs its room while it trains."""
    total = Projection(*map(sum, zip(*runs, strict=True)))
    return total._replace(disk=total.kept + max(run.disk - run.kept for run in runs))


def _hours(spec: ExperimentSpec, short: ExperimentSpec, measured: dict[str, Any], stretch: float) -> float:
    s, more = measured["seconds"], stretch * spec.prompts_per_step / short.prompts_per_step
    rate = measured["tokens"] / s["rollout"]
    length = stretch * measured["response_length"]
    update = s["update"] - s["increment"] + s["increment"] / spec.increment_every
    other = max(0.0, s["step"] - s["rollout"] - s["update"] - s["checkpoint"])
    problems, responses = _counts()
    validation = max(s["validation"], problems * length / rate)
    evaluation = max(s["evaluation"], responses * length / rate * measured["gpus"])
    steps = spec.steps * ((s["rollout"] + update) * more + other)
    validations = -(-spec.steps // spec.validation_every) * (validation + s["checkpoint"])
    return (s.get("start-up", 0.0) + steps + validations + evaluation) / 3600


def _counts() -> tuple[int, int]:
    """Problems of a validation, and responses of an evaluation (Avg@5 and Avg@10)."""
    sets = [DATASETS[name] for name in BENCHMARKS]
    return sum(source.rows for source in sets), sum(source.rows * source.samples for source in sets)


def page(
    spec: ExperimentSpec, short: ExperimentSpec, measured: dict[str, Any], dollars: float, matrix: list[ExperimentSpec]
) -> str:
    """The rehearsal's page as Markdown: each part, then the projection of the run and of the matrix's runs of its policy."""
    same = [project(one, short, measured, dollars) for one in matrix if one.policy == spec.policy]
    rows = [("this run", project(spec, short, measured, dollars))]
    if same:
        rows.append((f"{len(same)} runs of the matrix with this policy", together(same)))
    return _template("rehearsal.md.j2").render(
        spec=spec,
        short=short,
        m=measured,
        rows=rows,
        memory=MEMORY,
        count=PROBLEMS["benchmark"],
        seconds=lambda part: f"{measured['seconds'][part]:.1f}" if part in measured["seconds"] else "-",
        **_assumed(dollars, measured["gpus"]),
    )


def matrix_page(name: str, rehearsed: list[tuple[ExperimentSpec, ExperimentSpec, dict]], failed: int, dollars: float) -> str:
    """The page of a matrix: for each run its spec, the rehearsed one and what that measured; then all of them together."""
    rows = [(spec, measured, project(spec, short, measured, dollars)) for spec, short, measured in rehearsed]
    total, gpus = (together([p for _, _, p in rows]), rows[0][1]["gpus"]) if rows else (None, None)
    real = bool(rows) and not any(measured["stand_in"] for _, measured, _ in rows)
    return _template("rehearsals.md.j2").render(
        name=name, rows=rows, failed=failed, total=total, real=real, **_assumed(dollars, gpus)
    )


def _assumed(dollars: float, gpus: int | None) -> dict[str, Any]:
    """What both pages say of a projection."""
    problems, responses = _counts()
    return {"dollars": dollars, "gpus": gpus, "problems": problems, "responses": responses}


def _template(name: str):
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True).get_template(name)


def read_measured(folder: Path) -> dict[str, Any] | None:
    """What a finished rehearsal in a record's folder measured."""
    path = folder / "rehearsal.json"
    return json.loads(path.read_text()) if path.is_file() else None
