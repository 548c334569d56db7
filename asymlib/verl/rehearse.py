"""A rehearsal: three steps of a run as it would be launched, cut off and resumed, and what the whole run takes by them.

Only numbers of prompts, steps and problems are smaller; on a CPU a stand-in takes the model's place too (cpu/standin.py).
"""

from __future__ import annotations

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
from .cpu.settings import STAND_IN_TOKENS

STEPS, CUT_OFF_AFTER = 3, 2
PART_OF_A_BATCH = 4  # a step has a quarter of the run's prompts
CPU_PROMPTS, CPU_RESPONSE_TOKENS = 4, 32
PROBLEMS = {"train": 400, "benchmark": 4}  # the training set has more than any rehearsal asks for
CHECKPOINTS = 3  # the best, the last and the one being written
MEMORY = (
    "Memory short? One after the other: --override actor_rollout_ref.rollout.gpu_memory_utilization=0.4; "
    "--override actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192; "
    "--override actor_rollout_ref.actor.fsdp_config.param_offload=true and ...optimizer_offload=true; "
    "--override actor_rollout_ref.model.lora_rank=32 (trains another parametrisation: no longer the paper's)."
)


def shortened(spec: ExperimentSpec, on_cpu: bool) -> ExperimentSpec:
    """The run that is rehearsed: the spec with fewer steps and prompts, as many mini-batches a step, on a CPU short responses.

    The increment is measured at each step, and the projection counts it as often as the run has it.
    """
    minibatches = spec.prompts_per_step // spec.prompts_per_minibatch
    wanted = CPU_PROMPTS if on_cpu else spec.prompts_per_step // PART_OF_A_BATCH
    minibatch = max(1, wanted // minibatches)
    fields = spec.model_dump() | {"steps": STEPS, "validation_every": CUT_OFF_AFTER, "increment_every": 1}
    fields |= {"prompts_per_minibatch": minibatch, "prompts_per_step": minibatch * minibatches}
    fields["max_response_tokens"] = CPU_RESPONSE_TOKENS if on_cpu else spec.max_response_tokens
    return make_spec(**fields)


def cut_data(source: Path, target: Path, tokens: Any = None) -> str:
    """Write a few problems of each set into `target` and return what they are: every n-th of `source`'s, or made-up sums.

    `tokens`: the stand-in's tokenizer; with it problems are short, and their answers digits that it can say.
    """
    target.mkdir(parents=True, exist_ok=True)
    prepared = (source / "manifest.json").is_file()
    for name in ("train", *BENCHMARKS):
        rows = pq.read_table(source / f"{name}.parquet").to_pylist() if prepared else _sums(name)
        if tokens is not None:
            rows = [row for row in rows if len(tokens(row["prompt"][0]["content"])["input_ids"]) < STAND_IN_TOKENS - 100]
            rows = [row | {"reward_model": {"style": "rule", "ground_truth": str(i % 3)}} for i, row in enumerate(rows)]
        count = PROBLEMS.get(name, PROBLEMS["benchmark"]) if tokens is not None or name != "train" else len(rows)
        pq.write_table(pa.Table.from_pylist(rows[:: max(1, len(rows) // count)][:count]), target / f"{name}.parquet")
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


def measure(record: RunRecord, seconds: dict[str, float], host_gigabytes: float, gpus: int) -> dict[str, Any]:
    """What a finished rehearsal tells, as JSON. `seconds`: of the parts that only the caller sees.

    A step is the one before the cut: the first of each attempt also warms up. Raises RuntimeError where a part did not happen.
    """
    lines, provenance = record.metrics.set_index("step"), record.provenance
    if lines.index.tolist() != list(range(1, STEPS + 1)) or not provenance["earlier_attempts"]:
        raise RuntimeError(f"{record.folder}: the run was not cut off and resumed; delete the folder and rehearse again")
    step, kept = lines.loc[CUT_OFF_AFTER], record.folder / "checkpoints" / f"global_step_{STEPS}"
    parts = {
        name: float(step[f"seconds_{name}"]) for name in ("rollout", "update", "increment", "checkpoint", "validation", "step")
    }
    memory = lines.memory.max() if "memory" in lines else None
    return {
        "seconds": {
            name: round(value, 2) for name, value in (seconds | parts | provenance["seconds"]).items() if value == value
        },
        "tokens": int(step.tokens),
        "response_length": float(lines.response_length.mean()),
        "reward_at_start": float(lines.reward.iloc[0]),
        "rollout_log_prob_gap": float(lines.rollout_log_prob_gap.max()),
        "rollout_log_prob_gap_mean": float(lines.rollout_log_prob_gap_mean.max()),
        "gpu_gigabytes": None if pd.isna(memory) else float(memory),
        "host_gigabytes": round(host_gigabytes, 2),
        "checkpoint_gigabytes": _gigabytes(kept),
        "sample_gigabytes": _gigabytes(record.folder / "samples" / "train") / STEPS,
        "gpus": gpus,
        "stand_in": provenance.get("stand_in"),
    }


def _gigabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


class Projection(NamedTuple):
    """Of a whole run: hours where responses keep their length and where all are as long as allowed, GPU-hours of the first."""

    hours: float
    most_hours: float
    gpu_hours: float
    dollars: float
    disk: float  # GB


def project(spec: ExperimentSpec, short: ExperimentSpec, measured: dict[str, Any], dollars_per_gpu_hour: float) -> Projection:
    """What `spec` takes by what its rehearsal `short` measured; `ASSUMPTIONS` says how."""
    longest = spec.max_response_tokens / measured["response_length"]
    hours, most = (_hours(spec, short, measured, stretch) for stretch in (1.0, longest))
    steps = spec.steps * spec.prompts_per_step / short.prompts_per_step
    disk = CHECKPOINTS * measured["checkpoint_gigabytes"] + steps * measured["sample_gigabytes"]
    gpu_hours = hours * measured["gpus"]
    return Projection(hours, max(hours, most), gpu_hours, gpu_hours * dollars_per_gpu_hour, disk)


ASSUMPTIONS = """\
- rollout and update take time in proportion to their tokens (vLLM is faster with more of them, so this is rather too much);
- weight sync and what else a step has stay as they are; the increment comes every {every} steps, a validation and a checkpoint
  every {validations};
- validation and evaluation sample at the rollout's rate (evaluation on one of the GPUs), {problems} and {responses} responses;
- "at most": every response has {tokens} tokens from the first step on; otherwise all stay as long as at the start;
- disk: three checkpoints at a time, and every response of training."""


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
    m, s, stand_in = measured, measured["seconds"], measured["stand_in"]
    notes = {
        "start-up": "to the first step: Ray, models, data",
        "step": f"{m['tokens']} tokens in {short.prompts_per_step} x {short.group_size} responses; the parts below are in it",
        "rollout": f"{m['tokens'] / s['rollout']:.0f} tokens/s; reward too",
        "update": f"log-probs, advantages, mini-batches, increment; gradient norm and loss finite at all {STEPS} steps",
        "increment": f"{s['increment'] / s['step']:.0%} of a step",
        "checkpoint": f"{m['checkpoint_gigabytes']:.3g} GB",
        "validation": f"{PROBLEMS['benchmark']} problems of each of {len(BENCHMARKS)} sets",
        "SIGTERM": f"after step {CUT_OFF_AFTER}; nothing left running",
        "notebook": "papermill, 10_train: resumed from the checkpoint, trained on, evaluated, drew",
        "evaluation": f"the best checkpoint, {PROBLEMS['benchmark']} problems of each set, Avg@5 and Avg@10",
    }
    memory = "not measured (no GPU)" if m["gpu_gigabytes"] is None else f"{m['gpu_gigabytes']:.1f} GB"
    lines = [
        f"# Rehearsal of {spec.variant}, {spec.policy}, seed {spec.seed}",
        "",
        f"Run {spec.run_id}, rehearsed as {short.run_id}. A rehearsal shows that the parts work; its numbers are no result.",
    ]
    if stand_in:
        lines += ["", "No GPU: a stand-in in the model's place: " + "; ".join(f"{k}: {v}" for k, v in stand_in.items()) + "."]
    lines += ["", "| part | seconds | |", "|---|---|---|"]
    lines += [f"| {name} | {s[name]:.1f} | {note} |" for name, note in notes.items() if name in s]
    lines += [
        "",
        f"Log-probs of rollout and policy differ by at most {m['rollout_log_prob_gap']:.2g} nats a token, "
        f"{m['rollout_log_prob_gap_mean']:.2g} in the mean. Right answers at the start: {m['reward_at_start']:.1%}. "
        f"Peak memory: GPU, the policy's process {memory}; host {m['host_gigabytes']:.1f} GB.",
        "",
        MEMORY,
        "",
        *_projections(spec, short, measured, dollars, matrix),
    ]
    return "\n".join(lines) + "\n"


def _projections(spec, short, measured, dollars: float, matrix: list[ExperimentSpec]) -> list[str]:
    problems, responses = _counts()
    same = [one for one in matrix if one.policy == spec.policy]
    rows = {"this run": [spec], f"{len(same)} runs of the matrix with this policy": same}
    said = "## The whole run, projected" + (
        " - of the stand-in on this CPU; of GPUs it says nothing" * bool(measured["stand_in"])
    )
    lines = [said, "", "| | hours | at most | GPU-hours | GB at a time | dollars |", "|---|---|---|---|---|---|"]
    for name, specs in rows.items():
        each = [project(one, short, measured, dollars) for one in specs]
        if each:
            hours, most, gpu, cost, _ = map(sum, zip(*each, strict=True))
            disk = max(one.disk for one in each)
            lines.append(f"| {name} | {hours:.1f} | {most:.1f} | {gpu:.0f} | {disk:.0f} | {cost:.0f} |")
    assumed = ASSUMPTIONS.format(
        every=spec.increment_every,
        validations=spec.validation_every,
        problems=problems,
        responses=responses,
        tokens=spec.max_response_tokens,
    )
    return [*lines, "", f"At ${dollars:g} a GPU-hour (--dollars-per-gpu-hour). It assumes:", "", assumed]


def read_measured(folder: Path) -> dict[str, Any] | None:
    """What a finished rehearsal in a record's folder measured."""
    path = folder / "rehearsal.json"
    return json.loads(path.read_text()) if path.is_file() else None
