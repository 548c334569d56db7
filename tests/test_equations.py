"""Every equation of the paper is named in the docstring of the code that computes it."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

MAP = yaml.safe_load((Path(__file__).resolve().parents[1] / "docs" / "formulas.yaml").read_text())
ENTRIES = [(str(entry["equation"]), entry["code"]) for entry in MAP if entry["equation"] != "Table 1"]


def numbers(text: str) -> set[int]:
    """'4-7, 10' -> {4, 5, 6, 7, 10}."""
    found = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def named_in(docstring: str) -> set[int]:
    return set().union(*(numbers(part) for part in re.findall(r"Eq\. ([\d, -]+(?:and \d+)?)", docstring)), set())


def test_the_map_has_all_eighteen():
    assert set().union(*(numbers(equation) for equation, _ in ENTRIES)) == set(range(1, 19))


@pytest.mark.parametrize(("equation", "names"), ENTRIES)
def test_the_docstrings_name_the_equation(equation, names):
    docstrings = ""
    for name in names:
        module, _, attribute = name.rpartition(".")
        docstrings += getattr(importlib.import_module(module or "asymlib"), attribute).__doc__
    assert numbers(equation) <= named_in(docstrings)


def test_the_reading_of_numbers():
    assert numbers("4-7, 10") == {4, 5, 6, 7, 10} and named_in("of Eq. 2, 8 and 11 and Eq. 4-6") == {2, 8, 11, 4, 5, 6}
