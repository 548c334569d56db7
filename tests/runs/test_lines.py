"""Sealed lines: a change of any one byte, and any other order, is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymlib.runs.lines import append_sealed, sealed, unsealed

METRICS = st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none())
ENTRIES = st.lists(st.fixed_dictionaries({"metrics": METRICS}), min_size=1)


def written(entries):
    lines = []
    for entry in entries:
        lines.append(sealed(entry, lines[-1] if lines else b""))
    return lines


def read(lines):
    return [unsealed(line, before) for before, line in zip([b"", *lines], lines, strict=False)]


@given(ENTRIES)
def test_what_was_written_is_read(entries):
    assert read(written(entries)) == entries


@given(ENTRIES, st.data())
def test_one_changed_byte_breaks_its_line_and_no_earlier_one(entries, data):
    lines = written(entries)
    number = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[number])
    line[data.draw(st.integers(0, len(line) - 2))] ^= 1 << data.draw(st.integers(0, 7))  # the last byte ends the line
    found = read([*lines[:number], bytes(line), *lines[number + 1 :]])
    assert found[:number] == entries[:number] and found[number] is None


def test_order_and_number_are_part_of_it(tmp_path):
    entries = [{"step": step} for step in (1, 2, 3)]
    (tmp_path / "run").mkdir()
    for entry in entries:
        append_sealed(tmp_path / "run" / "lines", entry)
    first, second, third = (tmp_path / "run" / "lines").read_bytes().splitlines(keepends=True)
    assert unsealed(first, b"run") == entries[0] and unsealed(first, b"other run") is None
    assert [unsealed(second, first), unsealed(third, second)] == entries[1:]
    first = sealed(entries[0])
    second = sealed(entries[1], first)
    assert read([first, third]) == [entries[0], None]
    assert read([second, first]) == [None, None]
    assert read([first, first]) == [entries[0], None]
    with pytest.raises(ValueError):
        sealed({"reward": float("nan")})
