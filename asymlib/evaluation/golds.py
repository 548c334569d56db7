"""The gold answer of a row, read with its problem: boxes of one list joined, and a list that is ordered marked as such.

MATH has its answer in the solution's box, or one by one in several boxes. OlympiadBench has a list of answers, which may be the
solutions of an equation, in any order, or what was asked for by name: "Determine $a$ and $b$". Only the problem tells which.
"""

from __future__ import annotations

import re
from typing import Any

from .grading import normalised, value
from .reward import boxes

IN_ORDER = r" \text{, respectively}"  # after a gold that is an ordered list; grading.py reads it
_SEVERAL = re.compile(r"separated by|all (?:the )?possible|find all", re.IGNORECASE)  # more than one answer is asked for
_LEAST, _MOST = "(?:smallest|least|minimum|min)", "(?:largest|greatest|maximum|max)"
_ORDER = re.compile(
    r"respectively|in (?:that|this) order(?! of)|how many of each|"
    rf"{_LEAST} and (?:the )?{_MOST}\b|{_MOST} and (?:the )?{_LEAST}\b",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r"(?:solve|solutions? (?:to|of)) (?:the|this) system of equations.*?\\begin\{aligned\}(.*?)\\end\{aligned\}",
    re.I | re.DOTALL,
)
_UNKNOWN = re.compile(r"(?<![\\A-Za-z])[a-z](?![A-Za-z])")
_DOLLAR = re.compile(r"(?<!\\)\$")  # not the money
_NAME = r"(?:\\angle\s*)?[A-Za-z]+(?:_\w)?\s*(?:_?\{[^{}]*\})?(?:\s*[A-Z]_\{\d\})*(?:\([^()]*\))?"
_NAMES = re.compile(
    r"(?:values? of|determine|find|compute|what (?:are|is))\s+"
    r"(?:(?:the|all|both|real|positive|numbers|integers|angles|values? of)\s+)*"
    rf"({_NAME}(?:\s*,\s*(?:and\s+)?{_NAME})*\s*,?\s+and\s+{_NAME})",
    re.IGNORECASE,
)
_ALL = re.compile(rf"{_SEVERAL.pattern}|all (?:\w+ )?(?:values|solutions|functions|pairs|roots)", re.IGNORECASE)


def gold(cell: Any, problem: str, boxed: bool) -> str | None:
    """The answer in a source's cell: a text, a number, a list of them or, `boxed`, a solution. None where there is none."""
    if isinstance(cell, list):
        found = ", ".join(filter(None, (gold(part, "", boxed) for part in cell)))
    elif cell is None:
        return None
    elif boxed:
        contents = [content for _, _, content in boxes(str(cell))]
        found = ", ".join(dict.fromkeys(reversed(contents))) if _SEVERAL.search(problem) else next(iter(contents), "")
    else:
        found = str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()  # AMC 2023: 27.0
    return _DOLLAR.sub("", found) + IN_ORDER if found and is_ordered(found, problem) else found


def is_ordered(answer: str, problem: str) -> bool:
    """Whether a bare list answers to as many names or unknowns of a system as it has values, or to an order that is asked for.

    "in increasing order" tells how to write a set, and does not count. Of OlympiadBench's lists this finds 20, rightly by our
    reading. "Determine their ages" is a set too: its gold, 7, 14, 18, is in no order of the three names.
    """
    shape = value(normalised(answer))
    if len(shape.items) < 2 or shape.brackets or "=" in answer or any(value(item).brackets for item in shape.items):
        return False  # values that carry their names need no order
    text = re.sub(r"\\(?:left|right|[,;:! ])|\$", "", problem)
    named = {len(re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", names)) for names in _NAMES.findall(text)}
    named |= {len(set(_UNKNOWN.findall(equations))) for equations in _SYSTEM.findall(text)}
    return len(shape.items) in named or bool(_ORDER.search(text) and not _ALL.search(text))
