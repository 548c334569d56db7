"""Files: read with errors in one line, written whole or not at all."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .messages import shown

POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(23)])  # those that a double holds exactly


def results_root() -> Path:
    """Where records go: $ASYMLIB_RESULTS, else `results/` of the nearest folder upwards that has one, else ./results."""
    if "ASYMLIB_RESULTS" in os.environ:
        return named_folder(os.environ["ASYMLIB_RESULTS"], "ASYMLIB_RESULTS")
    here = Path.cwd()
    return next((p / "results" for p in (here, *here.parents) if (p / "results").is_dir()), here / "results")


def results_folder(results: Path | str | None) -> Path:
    """`results`, or `results_root()` if None. Raises as `named_folder`."""
    return results_root() if results is None else named_folder(results, "results")


def named_folder(path: Path | str, name: str) -> Path:
    """A folder that may still have to be made. Raises ValueError for '', which would be the current folder, and for a file,
    TypeError for what is no path."""
    if not isinstance(path, str | Path):
        raise TypeError(f"{name}={shown(path)}: must be the path of a folder")
    text = str(path) if isinstance(path, Path) else path
    if not text.strip():
        raise ValueError(f"{name}={text!r}: must name a folder")
    if max(map(len, os.fsencode(text).split(b"/"))) > 255:
        raise ValueError(f"{name}={shown(text)}: a name in it is longer than 255 bytes")
    there = next(path for path in (Path(text), *Path(text).absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):  # a file, or links in a circle
        raise ValueError(f"{name}={text!r}: is no folder")
    return Path(text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError inside names `path`: 'No space left on device' alone does not say where."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: readers see the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with naming(path):
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
    """By zstd, without what costs more than it tells in a file of some hundred rows: dictionaries, statistics.

    A column of floats of at most six digits is stored in single precision, which halves the file; `read_parquet` gives the same
    doubles back. Other columns are stored as they are.
    """
    import pyarrow as pa  # slow, and not every command reads or writes tables
    import pyarrow.parquet as pq

    floats = frame.select_dtypes("float64")
    with np.errstate(over="ignore"):  # to infinity, which is not what was there
        singles = floats.astype(np.float32)
    same = pd.DataFrame(six_digits(singles.to_numpy()), floats.index, floats.columns)
    short = singles[[name for name in floats if np.array_equal(same[name], floats[name], equal_nan=True)]]
    table = pa.Table.from_pandas(frame.assign(**short), preserve_index=False).replace_schema_metadata(None)
    options = {"compression": "zstd", "compression_level": 9, "use_dictionary": False, "write_statistics": False}
    content = io.BytesIO()
    pq.write_table(table, content, use_byte_stream_split=[*short], **options)
    write_atomically(path, content.getvalue())


def read_parquet(path: Path) -> pd.DataFrame:
    """In one thread, which is twice as fast for a file of some hundred rows."""
    import pyarrow.parquet as pq

    frame = pq.ParquetFile(path, pre_buffer=False).read(use_threads=False).to_pandas(use_threads=False)
    singles = frame.select_dtypes("float32")
    doubles = zip(singles, six_digits(singles.to_numpy()).T, strict=True)
    return pd.DataFrame(dict(frame.items()) | dict(doubles)) if len(singles.columns) else frame


def six_digits(singles: np.ndarray) -> np.ndarray:
    """The doubles of at most six digits, below a million, whose nearest floats of single precision these are."""
    values = singles.astype(np.float64)
    with np.errstate(all="ignore"):  # zero, NaN and infinity stay what they are
        places = 5 - np.floor(np.log10(np.abs(values)))
        usual = (places >= 0) & (places < len(POWERS_OF_TEN))
        power = POWERS_OF_TEN[np.where(usual, places, 0).astype(int)]
        return np.where(usual, np.rint(values * power) / power, values)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
