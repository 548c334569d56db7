"""Copies of the six sets in the hub's columns (`hub/`: invented problems), and what is prepared of them."""

import json
from pathlib import Path

import pytest

from asymlib.evaluation.data import prepare
from asymlib.evaluation.sets import DATASETS

HUB = Path(__file__).parent / "hub"


def rows_of_hub(name: str) -> list[dict]:
    return [json.loads(line) for line in (HUB / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def hub_rows():
    return rows_of_hub


@pytest.fixture(scope="session")
def copies(tmp_path_factory):
    """A folder with all six sets at their real sizes: the rows of `hub/`, then numbered ones like the last."""
    folder = tmp_path_factory.mktemp("copies")
    for name, source in DATASETS.items():
        rows = rows_of_hub(name)
        last = rows[-1]
        rows += [last | {source.problem: f"{name}: what is number {i}?"} for i in range(len(rows), source.rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def prepared(copies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(folder, copies, report=lambda line: None)
    return folder
