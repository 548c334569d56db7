"""One clear sentence for every refused input: the field, the value, and what is allowed."""

import difflib
import re
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

MOST = 200  # characters of a sentence
DEEPEST = 50  # lists in lists of a value

_short = reprlib.Repr()  # does not walk what it does not show: a small file's repr may have gigabytes
_short.maxlevel, _short.maxdict, _short.maxstring, _short.maxlong, _short.maxother = 2, 3, 60, 40, 60


def shown(value: object, quoted: bool = True, most: int = 60) -> str:
    """A value as a sentence shows it: its repr (or its text), of what is nested or long only the beginning."""
    try:
        text = _short.repr(value) if quoted else str(value)
    except ValueError:  # Python writes no more than 4,300 digits
        text = f"a {type(value).__name__} that is too long to write"
    text = re.sub(r"\s*\n\s*", " ", text)  # a table's
    return text if len(text) <= most else text[: most - 3] + "..."


def sentence(message: object) -> str:
    """One line of at most `MOST` characters; what is cut lies in the middle, for paths differ in their ends."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(message)).split())
    return line if len(line) <= MOST else f"{line[: MOST - 83]} ... {line[-78:]}"


def printable(text: object) -> str:
    """The text with its control characters as escapes, but for line feeds and tabs: a folder's name may hold a terminal's."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))


def say(*values: object, **how: Any) -> None:
    """`print`, of `printable` texts."""
    print(*map(printable, values), **how)


def near_names(name: object, allowed: Iterable[str]) -> str:
    """Say which of `allowed` the caller probably meant; all of them when none is close."""
    allowed = [str(a) for a in allowed]
    close = difflib.get_close_matches(shown(name, quoted=False, most=100), allowed, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "allowed: " + ", ".join(allowed)


def refuse_unknown(kind: str, names: Iterable[object], allowed: Iterable[str]) -> None:
    """Raise ValueError for the first of `names` that is not in `allowed`, with the near ones."""
    allowed = list(allowed)
    for name in names:
        if not isinstance(name, str) or name not in allowed:  # an array would compare with each
            raise ValueError(f"unknown {kind} {shown(name)}: {near_names(name, allowed)}")


# What a package that is missing belongs to. verl has no release for Python 3.13.
_EXTRAS = dict.fromkeys(("torch", "tensorboard", "safetensors", "papermill", "psutil", "IPython", "ipywidgets"), "lab")


def missing_package(package: str) -> str:
    """The sentence for a package that is not installed: which extra of asymlib brings it, and on which Python."""
    extra = _EXTRAS.get(package.partition(".")[0], "verl")
    python = "" if extra == "lab" else " on Python 3.11 or 3.12 (verl 0.9.1 has no release for newer ones)"
    return f"this needs the package {package!r}, which is not installed: pip install 'asymlib[{extra}]'{python}"


def one_sentence(error: ValidationError) -> str:
    """A pydantic error as one line: the first field that is wrong, its value and the rule it breaks."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "literal_error":
        allowed = re.findall("'([^']*)'", first["ctx"]["expected"])
        return f"{field}={shown(first['input'])}: {near_names(first['input'], allowed)}"
    rule = (message[0].lower() + message[1:]).replace("valid tuple", "list").replace("tuple should", "list should")
    return f"{field}={shown(first['input'])}: {rule}"


def refuse_booleans(values: dict[str, Any], fields: dict[str, FieldInfo]) -> None:
    """Raise ValueError for true or false where a field wants something else; Python would take them as 1 and 0."""
    for name, value in values.items():
        if name in fields and fields[name].annotation is not bool and _has_boolean(value, name):
            raise ValueError(f"{name}={shown(value)}: must not be true or false")


def _has_boolean(value: Any, name: str, depth: int = 0) -> bool:
    if depth > DEEPEST:
        raise ValueError(f"{name}={shown(value)}: nested too deeply")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    is_boolean = type(value).__name__ == "bool"  # numpy's has the same name
    return is_boolean or any(_has_boolean(part, name, depth + 1) for part in parts)
