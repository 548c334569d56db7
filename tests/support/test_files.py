"""Tables on the disk: what is read is to the bit what was written."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymlib.runs.writer import as_recorded
from asymlib.support.files import read_parquet, six_digits, write_parquet

ANY = st.floats(width=64)
RECORDED = ANY.map(lambda value: as_recorded({"x": value})["x"])


@given(st.lists(st.tuples(st.integers(0, 2**40), ANY, RECORDED, RECORDED | st.none()), min_size=1))
def test_a_table_comes_back_as_it_was(tmp_path_factory, rows):
    frame = pd.DataFrame(rows, columns=["step", "any", "val_acc/walk-mix", "entropy"])
    path = tmp_path_factory.mktemp("table") / "metrics.parquet"
    write_parquet(path, frame)
    pd.testing.assert_frame_equal(read_parquet(path), frame, check_exact=True)


@given(st.floats(1e-15, 999999), st.sampled_from([-1, 1]))
def test_six_digits_are_found_again_from_single_precision(size, sign):
    value = sign * float(f"{size:.6g}")
    assert six_digits(np.array([value], np.float32)).tolist() == [value]


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([0.314159, 1e-4, 999999.0, 0.0, np.nan], "float"),
        ([0.3141592, 0.5], "double"),  # a digit too many
        ([1e300, 1e-300], "double"),
        ([np.inf, 0.5], "float"),
    ],
)
def test_only_what_single_precision_carries_is_stored_so(tmp_path, values, stored):
    write_parquet(tmp_path / "x.parquet", pd.DataFrame({"x": values}))
    assert str(pq.read_schema(tmp_path / "x.parquet").field("x").type) == stored
    assert np.array_equal(read_parquet(tmp_path / "x.parquet")["x"], values, equal_nan=True)
