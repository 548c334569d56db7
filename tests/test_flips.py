import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymlib import METHODS, flipped_negative, flipped_positive, negative_advantage, positive_advantage

END = 2 * 7**0.5 - 3**0.5

sizes = st.integers(3, 64)
accuracies = st.floats(0, 1)


def test_ends_of_equations_15_and_16():
    assert flipped_positive(1.0, 8) == pytest.approx(END) == pytest.approx(3.559, abs=5e-4)
    assert flipped_negative(0.0, 8) == pytest.approx(-END)


def test_equation_17_by_hand_for_four_rollouts():
    # A~(p) = A(1-p): sqrt(1/3), 1, sqrt(3); then one more step of sqrt(3) - 1.
    np.testing.assert_allclose(flipped_positive([0.25, 0.5, 0.75, 1], 4), [3**-0.5, 1, 3**0.5, 2 * 3**0.5 - 1])
    np.testing.assert_allclose(flipped_negative([0, 0.25, 0.5, 0.75], 4), [1 - 2 * 3**0.5, -(3**0.5), -1, -(3**-0.5)])
    assert flipped_positive(0.875, 4) == pytest.approx(1.5 * 3**0.5 - 0.5)  # half-way along the linear end


@given(accuracies, sizes, st.floats(0, 2))
def test_flips_mirror_each_other_in_both_axes(p, size, beta):
    assert flipped_negative(p, size, beta) == pytest.approx(-flipped_positive(1 - p, size, beta), rel=1e-6, abs=1e-9)


@given(sizes, st.floats(0, 2))
def test_inner_part_is_the_curve_at_one_minus_p(size, beta):
    p = np.arange(1, size) / size
    np.testing.assert_allclose(flipped_positive(p, size, beta), positive_advantage(1 - p, beta), rtol=1e-9)
    np.testing.assert_allclose(flipped_negative(p, size, beta), negative_advantage(1 - p, beta), rtol=1e-9)


@given(sizes)
def test_flips_are_continuous_and_monotone(size):
    p = np.linspace(0, 1, 20 * size + 1)
    for curve in (flipped_positive, flipped_negative):
        values = curve(p, size)
        assert np.isfinite(values).all() and (np.diff(values) >= -1e-12).all()
    joint = (size - 1) / size
    assert flipped_positive(joint + 1e-9, size) == pytest.approx(flipped_positive(joint, size), rel=1e-6)
    assert flipped_negative(1 - joint - 1e-9, size) == pytest.approx(flipped_negative(1 - joint, size), rel=1e-6)


def test_each_flipped_method_keeps_its_other_side():
    grpo_pos, grpo_neg = METHODS["grpo"].table(8)
    decrease_pos, decrease_neg = METHODS["ent_decrease"].table(8)
    increase_pos, increase_neg = METHODS["ent_increase"].table(8)
    np.testing.assert_array_equal(decrease_neg, grpo_neg)
    np.testing.assert_array_equal(increase_pos, grpo_pos)
    np.testing.assert_allclose(decrease_pos[1:8], grpo_pos[1:8][::-1])
    np.testing.assert_allclose(increase_neg[1:8], grpo_neg[1:8][::-1])


@pytest.mark.parametrize("curve", [flipped_positive, flipped_negative])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 2), "group_size=2"),
        ((0.5, 8.0), "group_size=8.0"),
        ((1.1, 8), "p="),
        ((np.nan, 8), "p="),
        ((0.5, 8, -1), "beta=-1"),
    ],
)
def test_flips_refuse_what_has_no_meaning(curve, arguments, message):
    with pytest.raises(ValueError, match=message):
        curve(*arguments)


def test_flipped_scalars_stay_scalars():
    assert np.ndim(flipped_positive(0.5, 8)) == np.ndim(flipped_negative(0.5, 8)) == 0
    assert flipped_positive(np.full((2, 3), 0.5), 8).shape == (2, 3)
