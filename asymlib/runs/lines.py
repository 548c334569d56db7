"""The lines of a run that goes on: files of JSON lines that only grow and are checked before they are believed.

`Lines` are the record's metrics, whose hash the snapshot knows. Lines of verl's trainer, another process, are `sealed`.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..support.files import naming

METRICS_LINES = "metrics.jsonl"


class Lines:
    """Appends steps 1, 2, ... and knows the sha256 of what it appended: a line that is lost or changed cannot pass."""

    def __init__(self, folder: Path):
        self.path, self.count, self._hash = folder / METRICS_LINES, 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, metrics: dict[str, Any]) -> None:
        """Write one step's line whole; the first line replaces what an earlier attempt left. Raises ValueError out of order."""
        if metrics["step"] != self.count + 1:
            raise ValueError(
                f"step={metrics['step']!r}: the line after step {self.count} must be that of step {self.count + 1}"
            )
        line = json.dumps(metrics, allow_nan=False).encode() + b"\n"
        with naming(self.path), self.path.open("ab" if self.count else "wb") as file:
            file.write(line)
        self._hash.update(line)
        self.count += 1

    def continue_after(self, count: int, sha256: str) -> bool:
        """Keep the first `count` lines of an earlier attempt if their hash is `sha256`; else none, and return False."""
        lines = self.path.read_bytes().splitlines(keepends=True)[:count] if self.path.is_file() else []
        found = hashlib.sha256(b"".join(lines))
        if len(lines) != count or found.hexdigest() != sha256:
            return False
        os.truncate(self.path, sum(map(len, lines)))
        self.count, self._hash = count, found
        return True

    def sync(self) -> None:
        """Put what was appended on the disk: a snapshot that outlives a power cut must find its lines."""
        with naming(self.path), self.path.open("ab") as file:
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """All lines. Raises RuntimeError if the file is not what was appended."""
        content = self.path.read_bytes() if self.count else b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise RuntimeError(f"{self.path}: changed while the run went on, so the run cannot end; run it again")
        return [json.loads(line) for line in content.splitlines()]


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run that may still go on, up to the first that is not JSON."""
    rows: list[dict[str, Any]] = []
    try:
        for line in (folder / METRICS_LINES).read_bytes().splitlines(keepends=True):
            row = json.loads(line)
            if not line.endswith(b"\n") or not isinstance(row, dict):
                break
            rows.append(row)
    except (OSError, ValueError, RecursionError):
        pass
    return rows


def sealed(entry: dict[str, Any], before: bytes = b"") -> bytes:
    """A line that ends with the sha256 of the line before it and of itself. Raises ValueError for NaN."""
    body = json.dumps(entry, allow_nan=False)
    return f'{body[:-1]}, "sha256": "{hashlib.sha256(before + body.encode()).hexdigest()}"}}\n'.encode()


def before_first(path: Path) -> bytes:
    """What a sealed file's first line follows: its folder's name, a run's id, so that another run's lines do not fit here."""
    return path.absolute().parent.name.encode()


def append_sealed(path: Path, entry: dict[str, Any]) -> None:
    """Append `entry` to a file of sealed lines, and put it on the disk."""
    before = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    with naming(path), path.open("ab", buffering=0) as file:
        file.write(sealed(entry, before[-1] if before else before_first(path)))
        os.fsync(file.fileno())


def unsealed(line: bytes, before: bytes = b"") -> dict[str, Any] | None:
    """What a line was made of; None if it is not the line that `sealed` made after `before`."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        entry = json.loads(line)
        del entry["sha256"]
        return entry if line == sealed(entry, before) else None
