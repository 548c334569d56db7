"""What one run amounts to: the numbers that claims, comparisons, tables and figures are about, each defined once."""

import numpy as np
import pandas as pd

from ..runs.records import RunRecord
from .statistics import avg_at_k, pass_at_k

PASS_K = 16
FIFTHS = 5


def fifth(metrics: pd.DataFrame, number: int) -> pd.DataFrame:
    """The rows in the given fifth (1 to 5) of each run's steps. metrics: of one run, or gathered with their run_id."""
    last = metrics.groupby("run_id").step.transform("max") if "run_id" in metrics else metrics.step.max()
    return metrics[(FIFTHS * metrics.step > (number - 1) * last) & (FIFTHS * metrics.step <= number * last)]


def late(metrics: pd.DataFrame) -> pd.DataFrame:
    """The last fifth of each run's steps: what "late" means everywhere (our choice)."""
    return fifth(metrics, FIFTHS)


def avg_by_set(evaluation: pd.DataFrame) -> pd.Series:
    """Avg@k of the best checkpoint by benchmark, of one run's evaluation."""
    best = evaluation[evaluation.checkpoint == "best"]
    return pd.Series([avg_at_k(*row) for row in zip(best.correct, best.samples, strict=True)], best.benchmark, dtype=float)


def accuracy(evaluation: pd.DataFrame) -> float:
    """Mean Avg@k of the best checkpoint over the benchmarks (the paper's Table 1); NaN if it was not evaluated."""
    return avg_by_set(evaluation).mean()


def late_pass_at_k(evaluation: pd.DataFrame, k: int = PASS_K, temperature: float = 1.0) -> float:
    """pass@k of the run's last policy; NaN where it was not evaluated at that temperature with k samples or more."""
    last = evaluation.query("checkpoint == 'last' and samples >= @k and temperature == @temperature")
    return pass_at_k(last.correct.iloc[0], last.samples.iloc[0], k) if len(last) else np.nan


def covariance_slope(covariance: pd.DataFrame) -> float:
    """Least-squares slope of Cov(p) over 0 < p < 1 (Eq. 14): at 0 and 1 all advantages of a group are equal."""
    inner = covariance.query("0 < accuracy < 1").groupby("accuracy")["covariance"].mean()
    return float(np.polyfit(inner.index, inner.to_numpy(), 1)[0]) if len(inner) > 1 else np.nan


def measure_run(record: RunRecord) -> dict[str, float]:
    """Every measure of one run; NaN where its engine did not write what the measure needs.

    entropy (nats per token), all-solved, none-solved, increment (nats per rollout), validation accuracy: means over the run.
    log entropy: the logarithm of the mean entropy, so that a difference is a ratio. late accuracy: mean validation accuracy of
    the last fifth; late change: that minus the middle fifth's.
    """
    metrics = record.metrics.reindex(
        columns=["step", "entropy", "val_acc", "all_solved", "none_solved", "log_prob_increment_pos"], fill_value=np.nan
    ).astype(float)
    means, late_accuracy = metrics.mean(), late(metrics)["val_acc"].mean()
    return {
        "entropy": means["entropy"],
        "log entropy": np.log(means["entropy"]) if means["entropy"] > 0 else np.nan,
        "accuracy": accuracy(record.evaluation),
        f"pass@{PASS_K}": late_pass_at_k(record.evaluation),
        "validation accuracy": means["val_acc"],
        "late accuracy": late_accuracy,
        "late change": late_accuracy - fifth(metrics, (FIFTHS + 1) // 2)["val_acc"].mean(),
        "all-solved": means["all_solved"],
        "none-solved": means["none_solved"],
        "increment": means["log_prob_increment_pos"],
        "cov-slope": covariance_slope(record.covariance),
    }


def measure_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run that did not collapse: variant, policy, seed and its measures. `runs` comes from `load_runs`."""
    kept = runs[~runs["collapsed"].astype(bool)]
    rows = [{"variant": r.variant, "policy": r.policy, "seed": r.seed} | measure_run(r.record) for r in kept.itertuples()]
    return pd.DataFrame(rows)


def seeds_by_variant(measures: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One measure as seeds x variants, of one policy's measures; NaN where a seed lacks a variant."""
    return measures.pivot(index="seed", columns="variant", values=measure)
