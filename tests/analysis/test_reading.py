"""How tables are printed for people."""

import numpy as np
import pandas as pd
import pytest

from asymlib.analysis.reading import for_reading, p_value, plus_minus


@pytest.mark.parametrize(
    ("p", "shown"),
    [(2e-5, "< .001"), (0.0, "< .001"), (0.0339, ".034"), (0.0996, ".10"), (0.2, ".20"), (1.0, "1.00"), ("", "")],
)
def test_p_has_two_digits(p, shown):
    assert p_value(p) == shown


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (24.076, 3.333, "24.1 ± 3.3"),
        (0.4218, 0.0183, "0.422 ± 0.018"),
        (251.3, 14.0, "251 ± 14"),
        (-0.3, 0.099, "-0.300 ± 0.099"),
        (0.5, 0.0, "0.5"),
        (24.076, "", "24.08"),
        ("", "", ""),
    ],
)
def test_a_value_has_as_many_places_as_its_interval_deserves(value, half, shown):
    assert plus_minus(value, half) == shown


def test_a_table_is_read_and_its_numbers_are_kept():
    table = pd.DataFrame(
        {
            "method": ["a", "b", "c"],
            "effect": [0.0438, -1.0, np.nan],
            "low": [0.0376, np.nan, np.nan],
            "high": [0.05, np.nan, np.nan],
            "p": [1e-9, 0.5, np.nan],
            "entropy": [0.42181, 0.2, 0.3],
            "± entropy": [0.0183, 0.01, np.nan],
            "share": [0.454, 0.1, np.nan],
            "share, low": [0.329, np.nan, np.nan],
            "share, high": [0.5, np.nan, np.nan],
        }
    )
    before = table.copy()
    shown = for_reading(table)
    pd.testing.assert_frame_equal(table, before)
    assert list(shown) == ["method", "effect (95% interval)", "p", "entropy", "share"]
    assert list(shown["share"]) == ["+0.454 (+0.329 to +0.500)", "+0.1", ""]
    assert list(shown["effect (95% interval)"]) == ["+0.0438 (+0.0376 to +0.0500)", "-1", ""]
    assert list(shown["p"]) == ["< .001", ".50", ""]
    assert list(shown["entropy"]) == ["0.422 ± 0.018", "0.200 ± 0.010", "0.3"]
