"""Smoothing, Avg@k, pass@k and intervals over seeds. Reads records' tables; knows no engine.

scipy is imported where it is needed: it takes more than a second, and a notebook that trains needs none of it.

Shapes: B problems of a benchmark, n samples each, S seeds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

EMA_FACTOR = 0.7  # stated for the paper's curves
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over seeds with its two-sided interval; low and high are NaN for a single seed."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        return f"{self.mean:.3f}" if np.isnan(half) else f"{self.mean:.3f} ± {half:.3f}"


def ema(values, factor: float = EMA_FACTOR) -> np.ndarray:
    """s_t = factor s_{t-1} + (1 - factor) x_t with s_0 = x_0: the weight of the past is the paper's 0.7 (our reading).

    values: (S,) of a curve; NaN where nothing was measured is carried over, not smoothed in.
    """
    return pd.Series(values, dtype=np.float64).ewm(alpha=1 - factor, adjust=False, ignore_na=True).mean().to_numpy()


def avg_at_k(correct, samples: int) -> float:
    """Mean share of right samples: correct (B,) counts out of `samples`."""
    return float(np.mean(_counts(correct, samples)) / samples)


def pass_at_k(correct, samples: int, k: int) -> float:
    """Unbiased chance that one of k samples is right: mean of 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374)."""
    from scipy.special import gammaln

    if not 1 <= k <= samples:
        raise ValueError(f"k={k}: must lie in 1..samples ({samples})")
    wrong = samples - _counts(correct, samples)
    enough = np.maximum(wrong, k)
    none_right = np.exp(gammaln(enough + 1) - gammaln(enough - k + 1) - gammaln(samples + 1) + gammaln(samples - k + 1))
    return float(np.mean(1 - np.where(wrong >= k, none_right, 0.0)))


def _counts(correct, samples: int) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.size == 0 or ((correct < 0) | (correct > samples)).any():
        raise ValueError(f"correct: needs at least one count, each in 0..samples ({samples})")
    return correct


def mean_interval(values, confidence: float = CONFIDENCE) -> Interval:
    """Mean of independent seeds with Student's t interval. Paired comparisons pass the seeds' differences.

    Student's t and not a percentile bootstrap: with the 3 to 8 seeds of a laptop the bootstrap covers far less than it says
    (tests/test_statistics.py measures both). Raises ValueError for no value or NaN.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values={values!r}: needs at least one finite number")
    if values.size == 1:
        return Interval(float(values[0]), np.nan, np.nan, 1)
    half = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half), values.size)


def paired_interval(by_seed_a: pd.Series, by_seed_b: pd.Series) -> Interval:
    """Interval of a - b over the seeds that both have; series indexed by seed. Raises ValueError if they share none."""
    difference = (by_seed_a - by_seed_b).dropna()
    if difference.empty:
        raise ValueError("the two share no seed: nothing to compare")
    return mean_interval(difference.to_numpy())


def ratio_interval(part, whole, confidence: float = CONFIDENCE) -> Interval:
    """mean(part) / mean(whole) over paired seeds with its interval by Fieller's theorem (1954).

    part, whole: (S,). The interval holds every r for which Student's interval of part - r whole holds 0. Low and high are NaN
    where the whole is not clear of 0, for then r has no bound, and for a single seed.
    """
    from scipy import stats

    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    ratio, seeds = float(part.mean() / whole.mean()), len(whole)
    if seeds == 1:
        return Interval(ratio, np.nan, np.nan, 1)
    t, means = stats.t.ppf((1 + confidence) / 2, seeds - 1), [part.mean(), whole.mean()]
    (pp, pw), (_, ww) = np.outer(means, means) - t**2 * np.cov(part, whole) / seeds
    if ww <= 0:  # the whole's own interval holds 0
        return Interval(ratio, np.nan, np.nan, seeds)
    half = np.sqrt(pw**2 - pp * ww)
    return Interval(ratio, float((pw - half) / ww), float((pw + half) / ww), seeds)


def distance_p(values, bounds: tuple[float, ...]) -> float:
    """Two-sided p-value of the mean against the nearest of `bounds`: the level at which its t interval reaches that bound.

    values: (S,) over seeds. NaN for one seed.
    """
    from scipy import stats

    if len(values) == 1:
        return float("nan")
    return max(float(stats.ttest_1samp(values, bound).pvalue) for bound in bounds)


def equivalence_p(values, margin: float) -> float:
    """The larger p-value of the two one-sided tests that the mean lies above -margin and below +margin.

    Below .05 exactly where Student's 90% interval lies inside the margin. values: (S,) over seeds. NaN for one seed.
    """
    from scipy import stats

    if len(values) == 1:
        return float("nan")
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return max(float(above), float(below))


def holm(p_values) -> np.ndarray:
    """Holm's step-down adjustment for many comparisons (doi 10.2307/4615733); NaN stays NaN and does not count."""
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = p_values.copy()
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN sorts last
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
