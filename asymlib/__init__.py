"""asymlib: asymmetric group advantages for RL with verifiable rewards (AsymGRPO, arXiv 2604.04894)."""

from .advantages import group_advantages, negative_advantage, positive_advantage
from .covariance import covariance_by_accuracy, group_covariance, length_normalized_log_prob
from .execution.running import run_experiment, run_in_subprocess
from .flips import flipped_negative, flipped_positive
from .methods import METHODS, RELATED, Method, get_method
from .runs.records import RunRecord, load_runs
from .runs.spec import ExperimentSpec, make_spec

__all__ = [
    "METHODS", "RELATED", "ExperimentSpec", "Method", "RunRecord", "covariance_by_accuracy", "flipped_negative",
    "flipped_positive", "get_method", "group_advantages", "group_covariance", "length_normalized_log_prob", "load_runs",
    "make_spec", "negative_advantage", "positive_advantage", "run_experiment", "run_in_subprocess",
]  # fmt: skip
