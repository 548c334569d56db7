"""The gold answer of a row, read with its problem: boxes of one list joined, an ordered list marked as such, a base added.

MATH has its answer in the solution's box, or one by one in several boxes. OlympiadBench has a list of answers, which may be the
solutions of an equation, in any order, or what was asked for by name: "Determine $a$ and $b$". Only the problem tells which.
And only the problem tells the base of 10000, where it asks for an answer in base 4.
"""

import re
from pathlib import Path
from typing import Any

from ..support.yaml12 import read_yaml
from .decontamination import NUMBERS
from .grading import normalised, ordered, value
from .reward import boxes

IN_ORDER = r" \text{, respectively}"  # after a gold that is an ordered list; grading.py reads it
_TABLE = read_yaml(Path(__file__).with_name("rewrites.yaml"))["asks"]
_ASKS = {name: re.compile(text.replace("NAME", _TABLE["name"]), re.IGNORECASE | re.DOTALL) for name, text in _TABLE.items()}
_DOLLAR = re.compile(r"(?<!\\)\$")  # not the money
_NUMERAL = re.compile(r"-?[\dA-Z]+")
_UNKNOWN = re.compile(r"(?<![\\A-Za-z])[a-z](?![A-Za-z])")


def gold(cell: Any, problem: str, boxed: bool) -> str | None:
    """The answer in a source's cell: a text, a number, a list of them or, `boxed`, a solution. None where there is none."""
    if isinstance(cell, list):
        found = ", ".join(filter(None, (gold(part, "", boxed) for part in cell)))
    elif cell is None:
        return None
    elif boxed:
        contents = [content for _, _, content in boxes(str(cell))]
        found = ", ".join(dict.fromkeys(reversed(contents))) if _ASKS["several"].search(problem) else next(iter(contents), "")
    else:
        found = str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()  # AMC 2023: 27.0
    if _NUMERAL.fullmatch(found) and (asked := base(problem)):
        return f"{found}_{{{asked}}}"
    if found and is_ordered(found, problem):
        return _DOLLAR.sub("", found) + IN_ORDER
    shape = value(normalised(found))
    is_set = _ASKS["all"].search(problem) and shape.is_list and not shape.brackets and ordered(shape.items)
    return rf"\{{{found}\}}" if is_set else found  # braces, or grading.py would take the list as it reads: ordered


def base(problem: str) -> str | None:
    """The base that an answer is asked for in, if it is not ten."""
    match = _ASKS["base"].search(problem)
    asked = next(filter(None, match.groups())).lower() if match else "ten"
    number = NUMBERS.get(asked, asked)
    return number if number.isdecimal() and number != "10" else None


def is_ordered(answer: str, problem: str) -> bool:
    """Whether a bare list answers to as many names or unknowns of a system as it has values, or to an order that is asked for.

    "in increasing order" tells how to write a set, and does not count; "from most to least popular" does, for names.
    Of OlympiadBench's lists this finds 20, rightly by our reading. "Determine their ages" is a set too: its gold, 7, 14, 18,
    is in no order of the three names.
    """
    shape = value(normalised(answer))
    if len(shape.items) < 2 or shape.brackets or "=" in answer or any(value(item).brackets for item in shape.items):
        return False  # values that carry their names need no order
    if _ASKS["ranked"].search(problem) and not re.search(r"\d", answer):
        return True
    text = re.sub(r"\\(?:left|right|[,;:! ])|\$", "", problem)
    named = {len(re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", names)) for names in _ASKS["names"].findall(text)}
    named |= {len(set(_UNKNOWN.findall(equations))) for equations in _ASKS["system"].findall(text)}
    return len(shape.items) in named or bool(_ASKS["order"].search(text) and not _ASKS["all"].search(text))
