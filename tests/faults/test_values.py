"""Every function of the public API, given every kind of value: it answers, or it refuses and names the argument."""

import itertools
import re
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

import asymlib
from asymlib import METHODS, make_spec

CIRCLE = []
CIRCLE.append(CIRCLE)
VALUES = {
    "none": None, "nan": [float("nan"), 1.0], "infinity": [float("inf"), 1.0], "text": "ab", "texts": ["a", "b"],
    "bytes": b"ab",
    "booleans": np.array([True, False]), "empty": [], "0-d": np.array(1.0), "number": 1, "negative": -3,
    "objects": np.array([1, None], object), "numbers as objects": np.array([1, 0], object), "huge": [10**400, 1],
    "more digits than Python writes": 10**10_000, "a generator": (i for i in (1, 0)), "decimals": [Decimal(1), 0],
    "bf16": torch.tensor([1.0, 0.0], dtype=torch.bfloat16), "whole numbers": torch.tensor([1, 0]), "range": range(2),
    "a series": pd.Series([1.0, 0.0], index=[5, 7]), "NA": [pd.NA, 1], "nullable": pd.Series([1, None], dtype="Int64"),
    "categories": pd.Series(["a", "b"], dtype="category"), "times": pd.to_datetime(pd.Series(["2020", "2021"])),
    "ragged": [[1, 0], [1]], "2-d": np.ones((2, 2)), "complex": [1j, 0], "complex tensor": torch.tensor([1j, 0]),
    "a set": {1, 0}, "a dictionary": {0: 1, 1: 0}, "a tensor among numbers": [torch.tensor(1.0), 0],
    "unequal tensors": [torch.tensor([1.0]), torch.tensor([0.0, 1.0])], "boolean tensor": torch.tensor([True, False]),
    "no device": torch.empty(2, device="meta"), "sparse": torch.tensor([1.0, 0.0]).to_sparse(), "an object": object(),
    "a gradient": torch.tensor([1.0, 0.0], requires_grad=True), "a list in itself": CIRCLE,
}  # fmt: skip
GRPO = METHODS["grpo"]
NAMES = {"log_probs": "log_probs|mask", "mask": "log_probs|mask", "method_changes": "method_changes|method setting"}
FIELDS = asymlib.ExperimentSpec.model_fields
CALLS = {
    "rewards": lambda v: asymlib.group_advantages(v, [0, 0], GRPO),
    "groups": lambda v: asymlib.group_advantages([1, 0], v, GRPO),
    "method": lambda v: asymlib.group_advantages([1, 0], [0, 0], v),
    "log_probs": lambda v: asymlib.group_covariance(v, [1.0, 0.0], [0, 0]),
    "advantages": lambda v: asymlib.group_covariance([1.0, 0.0], v, [0, 0]),
    "rewards ": lambda v: asymlib.covariance_by_accuracy([1.0, 0.0], [1.0, 0.0], v, [0, 0]),
    "log_probs ": lambda v: asymlib.length_normalized_log_prob(v, [[1, 1]]),
    "mask": lambda v: asymlib.length_normalized_log_prob([[1.0, 1.0]], v),
    "mask ": lambda v: asymlib.length_normalized_log_prob(torch.ones(1, 2), v),
    "p": lambda v: asymlib.positive_advantage(v, 0.5),
    "p ": lambda v: asymlib.flipped_negative(v, 8),
    "beta": lambda v: asymlib.negative_advantage(0.5, v),
    "group_size": lambda v: asymlib.flipped_positive(0.5, v),
    "group_size ": GRPO.table,
    "method  ": asymlib.get_method,
    "beta_pos": lambda v: asymlib.get_method("asymgrpo", beta_pos=v),
    **{name: lambda v, name=name: make_spec(**({"method": "grpo"} | {name: v})) for name in FIELDS},
    "folder": asymlib.load_runs,
    "spec": asymlib.run_experiment,
    "spec ": asymlib.run_in_subprocess,
}


@pytest.mark.parametrize("argument", CALLS)
def test_a_value_is_taken_or_refused_by_name(argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = NAMES.get(argument.strip(), argument.strip())
    wrong, refused = [], 0
    for kind, value in VALUES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                CALLS[argument](value)
        except (ValueError, TypeError) as error:
            refused += 1
            if not re.search(names, str(error)) or "\n" in str(error):
                wrong.append(f"{kind}: {error}")
        except Exception as error:
            wrong.append(f"{kind}: {type(error).__name__}: {error}")
    assert not wrong and refused > 5 and not list(tmp_path.iterdir())


def test_a_tensors_scalars_in_a_list_are_the_numbers_that_they_are():
    """torch hashes each by itself: each rollout would be a group of its own."""
    groups = [torch.tensor(7), torch.tensor(7), 7]
    assert asymlib.group_advantages([1, 0, 0], groups, GRPO).tolist() == pytest.approx([2**0.5, -(2**-0.5), -(2**-0.5)])


@pytest.mark.parametrize(("i", "bad"), [*itertools.product([0, 1], [float("nan"), float("inf")])])
def test_a_log_prob_that_is_no_number_is_named(i, bad):
    log_probs = [-1.0, -1.0]
    log_probs[i] = bad
    with pytest.raises(ValueError, match=rf"log_probs\[{i}\]={bad}: every number must be finite"):
        asymlib.group_covariance(log_probs, [1, -1], [0, 0])


def test_mask_as_a_list_beside_a_tensor():
    assert asymlib.length_normalized_log_prob(torch.tensor([[-1.0, -3.0]]), [[1, 0]]).tolist() == [-1.0]
