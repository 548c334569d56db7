"""YAML 1.2 as people read it: yes, 010 and 1:30 are text, a key stands once, and nothing expands.

PyYAML follows YAML 1.1, where `seed: yes` is true, `steps: 1:30` is 90 and of two equal keys the last one wins.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from .messages import shown

MOST = 100_000  # characters of a file: PyYAML needs a second for so many


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to leave out YAML 1.1's

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"alias *{self.peek_event().anchor}: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"key {shown(twice)} stands twice")
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,99})", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def parse_yaml(text: str) -> Any:
    """Raises ValueError in one sentence."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {shown(' '.join(str(error).split()), quoted=False, most=120)}") from None
    except (RecursionError, TypeError, ValueError):
        raise ValueError("not YAML: nested too deeply, or a value of no use here") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML mapping with text keys. Raises ValueError in one sentence that names the file."""
    try:
        with Path(path).open() as file:
            text = file.read(MOST + 1)
        if len(text) > MOST:
            raise ValueError(f"has more than {MOST} characters")
        content = parse_yaml(text)
    except OSError as error:
        near = difflib.get_close_matches(Path(path).name, [p.name for p in Path(path).parent.glob("*")])
        hint = f"; did you mean {near[0]!r}?" if near and isinstance(error, FileNotFoundError) else ""
        raise ValueError(f"{path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: must be a YAML mapping, not {type(content).__name__}")
    return content


def assignment(text: str) -> tuple[str, Any]:
    """'beta_pos=0.9' as a name and its value, read as YAML. Raises ValueError in one sentence."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{shown(text)}: must read NAME=VALUE, such as beta_pos=0.9")
    try:
        return name, parse_yaml(value)
    except ValueError:
        raise ValueError(f"{shown(text)}: the value is not YAML") from None
