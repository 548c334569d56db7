"""The paper's problem sets: where each comes from, which of them are benchmarks, and where prepared ones lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..runs.records import results_root


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
    texts: int  # the sum of its problems' CRC-32, spaces aside: tells which row of a longer copy is not the set's


_CONTEST = "the contest's problems (MAA): research and evaluation use only"
# The paper names the sets, not their copies: ids and revisions are our choice. Rows are what those revisions hold.
# fmt: off
DATASETS = {
    "train": Source("DigitalLearningGmbH/MATH-lighteval", "default", "train", "0530c78699ea5e8eb5530600900e1f328b48acad",
                    7500, "problem", "solution", None, "MIT", 16_047_131_770_694),
    "math-500": Source("HuggingFaceH4/MATH-500", "default", "test", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
                       500, "problem", "answer", 5, "MIT", 1_030_055_009_609),
    "aime-2024": Source("HuggingFaceH4/aime_2024", "default", "train", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
                        30, "problem", "answer", 10, _CONTEST, 74_132_624_839),
    "aime-2025": Source("math-ai/aime25", "default", "test", "563bb8404243c5f09de6ec262f2db674fe5bce9b",
                        30, "problem", "answer", 10, _CONTEST, 73_089_191_686),
    "amc-2023": Source("math-ai/amc23", "default", "test", "80815d37005feb82cd7f8fbc6901d5d3eff43057",
                       40, "question", "answer", 10, _CONTEST, 74_769_232_091),
    "olympiadbench": Source("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", "91184b52131e7fc9455fef848035173aea8cc01a",
                            674, "question", "final_answer", 5, "CC BY-NC 4.0 (its authors'; the hub's card says Apache-2.0)",
                            1_510_179_446_877),
}
# fmt: on
BENCHMARKS = tuple(name for name, source in DATASETS.items() if source.samples)


def data_root(results: Path | None = None) -> Path:
    """Where prepared data lie: $ASYMLIB_DATA, else `data/` beside the results."""
    return Path(os.environ.get("ASYMLIB_DATA", (results or results_root()).resolve().parent / "data"))
