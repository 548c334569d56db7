from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymlib.analysis.statistics import (
    avg_at_k,
    distance_p,
    ema,
    holm,
    mean_interval,
    paired_interval,
    pass_at_k,
    ratio_interval,
)


def test_fieller_s_interval_of_a_ratio_holds_each_ratio_that_student_s_t_does_not_refuse():
    random = np.random.default_rng(0)
    whole = random.normal(1, 0.3, 8)
    part = 0.4 * whole + random.normal(0, 0.1, 8)
    found = ratio_interval(part, whole)
    assert found.mean == pytest.approx(part.mean() / whole.mean()) and found.low < found.mean < found.high and found.seeds == 8
    for bound in (found.low, found.high):
        of_rest = mean_interval(part - bound * whole)
        assert min(abs(of_rest.low), abs(of_rest.high)) == pytest.approx(0, abs=1e-12)
    assert np.isnan(ratio_interval(part, whole - whole.mean() + 0.01).low)  # the whole may be 0: no bound
    assert ratio_interval([1.0], [2.0])[0] == 0.5 and np.isnan(ratio_interval([1.0], [2.0]).low)


def test_ema_by_hand():
    np.testing.assert_allclose(ema([1, 2, 0]), [1, 0.7 * 1 + 0.3 * 2, 0.7 * 1.3])
    np.testing.assert_allclose(ema([1, 2, 0], factor=0), [1, 2, 0])


def test_ema_carries_steps_that_measured_nothing():
    np.testing.assert_allclose(ema([np.nan, 1, np.nan, 2]), [np.nan, 1, 1, 1.3])


def test_avg_at_k_is_the_share_of_right_samples():
    assert avg_at_k([0, 5, 2], samples=5) == pytest.approx(7 / 15)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_equals_enumeration_of_all_subsets(samples, data):
    correct = data.draw(st.lists(st.integers(0, samples), min_size=1, max_size=4))
    k = data.draw(st.integers(1, samples))
    expected = np.mean([np.mean([any(i < c for i in s) for s in combinations(range(samples), k)]) for c in correct])
    assert pass_at_k(correct, samples, k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k([1], 4, 5), r"k=5: must lie in 1..samples \(4\)"),
        (lambda: pass_at_k([1], 4, 0), "k=0"),
        (lambda: avg_at_k([6], 5), r"each in 0..samples \(5\)"),
        (lambda: avg_at_k([], 5), "at least one count"),
        (lambda: mean_interval([]), "at least one finite number"),
        (lambda: mean_interval([1.0, np.nan]), "at least one finite number"),
        (lambda: paired_interval(pd.Series([1.0], index=[0]), pd.Series([1.0], index=[1])), "share no seed"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_mean_interval_by_hand():
    interval = mean_interval([1, 2, 3])
    half = 4.302652729911275 * 1 / 3**0.5  # t(0.975, 2 degrees of freedom) * s / sqrt(n)
    assert interval == pytest.approx((2, 2 - half, 2 + half, 3))
    assert str(interval) == "2.000 ± 2.484"


def test_one_seed_has_a_mean_and_no_interval():
    interval = mean_interval([0.25])
    assert interval.mean == 0.25 and np.isnan(interval.low) and np.isnan(interval.high) and str(interval) == "0.250"


def bootstrap_coverage(samples, draws=400):
    """Share of rows whose percentile-bootstrap 95% interval of the mean holds the true mean, 0."""
    rows, size = samples.shape
    resampled = np.random.default_rng(1).integers(size, size=(rows, draws, size))
    means = np.take_along_axis(samples[:, None], resampled, 2).mean(2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    return np.mean((low <= 0) & (high >= 0))


@pytest.mark.parametrize(("seeds", "bootstrap_at_most"), [(3, 0.80), (8, 0.93)])
def test_students_t_covers_what_it_says_and_the_bootstrap_does_not(seeds, bootstrap_at_most):
    samples = np.random.default_rng(0).normal(size=(1000, seeds))
    intervals = [mean_interval(row) for row in samples]
    t = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert t == pytest.approx(0.95, abs=0.02)
    assert bootstrap_coverage(samples) < bootstrap_at_most


def test_paired_interval_pairs_by_seed_whatever_the_order():
    a = pd.Series([0.5, 0.3, 0.9], index=[2, 1, 7])
    b = pd.Series([0.1, 0.2, 0.4], index=[1, 2, 3])
    assert paired_interval(a, b) == pytest.approx(mean_interval([0.3 - 0.1, 0.5 - 0.2]))


def test_pairing_removes_what_seeds_share():
    random = np.random.default_rng(0)
    seed_effect = pd.Series(random.normal(size=8))
    a, b = seed_effect + 0.1 + 0.01 * random.normal(size=8), seed_effect + 0.01 * random.normal(size=8)
    paired = paired_interval(a, b)
    assert paired.low > 0 and paired.high - paired.low < (mean_interval(a).high - mean_interval(a).low) / 10


def test_distance_p_is_the_level_at_which_the_interval_reaches_the_bound():
    values = [0.3, 0.5, 0.4, 0.8]
    for bounds, nearest in (((0.0,), 0.0), ((-0.2, 0.2), 0.2)):
        p = distance_p(values, bounds)
        assert mean_interval(values, 1 - p).low == pytest.approx(nearest)
    assert np.isnan(distance_p([0.3], (0.0,)))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.04, 0.01, np.nan, 0.03]), [0.06, 0.03, np.nan, 0.06])  # 3 x .01, 2 x .03, held
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
