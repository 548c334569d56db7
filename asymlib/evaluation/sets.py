"""The paper's problem sets: where each comes from, which of them are benchmarks, and where prepared ones lie."""

import os
from pathlib import Path
from typing import NamedTuple

from ..runs.records import results_root
from ..support.files import named_folder
from ..support.yaml12 import read_yaml


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


DATASETS = {name: Source(**row) for name, row in read_yaml(Path(__file__).with_name("sets.yaml")).items()}
BENCHMARKS = tuple(name for name, source in DATASETS.items() if source.samples)


def data_root(results: Path | None = None) -> Path:
    """Where prepared data lie: $ASYMLIB_DATA, else `data/` beside the results. Raises as `named_folder`."""
    if "ASYMLIB_DATA" in os.environ:
        return named_folder(os.environ["ASYMLIB_DATA"], "ASYMLIB_DATA")
    return (results or results_root()).resolve().parent / "data"
