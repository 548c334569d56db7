"""Files: read with errors in one line, written whole or not at all."""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
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


def read_json(path: Path) -> Any:
    """Raises ValueError, in one line that names the file, for one that cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON") from None


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """By zstd, without what costs more than it tells in a file of some hundred rows: dictionaries, statistics."""
    import pyarrow as pa  # slow, and not every command reads or writes tables
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", compression_level=9, use_dictionary=False, write_statistics=False)
    write_atomically(path, content.getvalue())


def read_parquet(path: Path) -> pd.DataFrame:
    """In one thread, which is twice as fast for a file of some hundred rows."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False).read(use_threads=False).to_pandas(use_threads=False)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
