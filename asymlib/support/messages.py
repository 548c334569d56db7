"""One clear sentence for every refused input: the field, the value, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import ValidationError


def near_names(name: object, allowed: Iterable[str]) -> str:
    """Say which of `allowed` the caller probably meant; all of them when none is close."""
    allowed = [str(a) for a in allowed]
    close = difflib.get_close_matches(str(name), allowed, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "allowed: " + ", ".join(allowed)


def refuse_unknown(kind: str, names: Iterable[object], allowed: Iterable[str]) -> None:
    """Raise ValueError for the first of `names` that is not in `allowed`, with the near ones."""
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            raise ValueError(f"unknown {kind} {name!r}: {near_names(name, allowed)}")


# What a package that is missing belongs to. verl has no release for Python 3.13.
_EXTRAS = {"torch": "lab", "safetensors": "lab", "papermill": "lab", "psutil": "lab", "IPython": "lab", "ipywidgets": "lab"}


def missing_package(package: str) -> str:
    """The sentence for a package that is not installed: which extra of asymlib brings it, and on which Python."""
    extra = _EXTRAS.get(package.partition(".")[0], "verl")
    python = "" if extra == "lab" else " on Python 3.11 or 3.12 (verl 0.9.1 has no release for newer ones)"
    return f"this needs the package {package!r}, which is not installed: pip install 'asymlib[{extra}]'{python}"


def assignment(text: str) -> tuple[str, Any]:
    """'beta_pos=0.9' as a name and its value, read as YAML. Raises ValueError in one sentence."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r}: must read NAME=VALUE, such as beta_pos=0.9")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"{text!r}: the value is not YAML") from None


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
        return f"{field}={first['input']!r}: {near_names(first['input'], allowed)}"
    rule = message[0].lower() + message[1:]
    return f"{field}={first['input']!r}: {rule}"
