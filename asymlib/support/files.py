"""Files: read as YAML with errors in one line, written whole or not at all."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import yaml


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: readers see the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML mapping with text keys. Raises ValueError in one line."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        near = difflib.get_close_matches(Path(path).name, [p.name for p in Path(path).parent.glob("*")])
        hint = f"; did you mean {near[0]!r}?" if near and isinstance(error, FileNotFoundError) else ""
        raise ValueError(f"{path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: must be a YAML mapping, not {type(content).__name__}")
    return content
