import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asymlib import METHODS, covariance_by_accuracy, group_advantages, group_covariance, length_normalized_log_prob
from asymlib.covariance import entropy, natural_gradient_step, predicted_entropy_change


def test_group_covariance_by_hand_with_divisor_g():
    # x - mean: 1, 0, -1, 0; A - mean: 3, -1, -1, -1; the sum of products, 4, over G = 4.
    assert group_covariance(np.array([0.0, -1, -2, -1]), np.array([3.0, -1, -1, -1]), "aaaa") == pytest.approx([1.0])


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-9, 0), st.floats(-3, 3)), min_size=1, max_size=30))
def test_group_covariance_is_numpys_population_covariance_in_order_of_appearance(rows):
    groups = [f"g{g}" for g, _, _ in rows]
    x, a = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    mine = group_covariance(x, a, groups)
    expected = [np.cov(x[i], a[i], bias=True)[0, 1] for g in dict.fromkeys(groups) for i in [np.array(groups) == g]]
    np.testing.assert_allclose(mine, expected, atol=1e-9)
    np.testing.assert_array_equal(mine, group_covariance(torch.tensor(x), torch.tensor(a), groups))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"log_probs \(2,\), advantages \(2,\), groups \(1,\)"):
        group_covariance(np.zeros(2), np.zeros(2), [0])


def test_covariance_by_accuracy_averages_groups_and_counts_them():
    log_probs = np.array([-1.0, -3, -1, -5, -2, -2, -1, -2])
    rewards = np.array([1.0, 0, 1, 0, 1, 1, 0, 0])
    groups = ["a", "a", "b", "b", "c", "c", "d", "d"]
    advantages = group_advantages(rewards, groups, METHODS["grpo"])
    table = covariance_by_accuracy(log_probs, advantages, rewards, groups)
    assert table["accuracy"].tolist() == [0, 0.5, 1]
    assert table["count"].tolist() == [1, 2, 1]
    np.testing.assert_allclose(table["covariance"], [0, 1.5, 0])  # at p = 1/2: 1 of group a and 2 of b


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("garbage", [np.nan, -np.inf, np.inf, 1e30])
def test_length_normalized_log_prob_ignores_what_is_masked(kind, garbage):
    log_probs = np.array([[-1.0, -2, -3], [-4, garbage, garbage], [garbage, -1, garbage]])
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0]])
    for m in (mask, mask.astype(bool)):
        result = length_normalized_log_prob(kind(log_probs), kind(m))
        assert type(result) is type(kind(mask))
        np.testing.assert_allclose(np.asarray(result), [-2, -4, -1])


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_length_normalized_log_prob_refuses_empty_rows_and_wrong_shapes(kind):
    with pytest.raises(ValueError, match=r"mask\[1\] has no token"):
        length_normalized_log_prob(kind(np.zeros((3, 2))), kind(np.array([[1, 0], [0, 0], [0, 0]])))
    with pytest.raises(ValueError, match=r"mask has the entry 0\.5: every entry must be 0 or 1"):
        length_normalized_log_prob(kind(np.zeros((1, 2))), kind(np.array([[1, 0.5]])))
    with pytest.raises(ValueError, match=r"log_probs has shape \(3, 2\), mask \(3, 3\)"):
        length_normalized_log_prob(kind(np.zeros((3, 2))), kind(np.ones((3, 3))))


def errors_of_equation_9(learning_rate, policies=200):
    """|exact - predicted| entropy change of one natural-gradient step, for random tabular policies and advantages."""
    random = np.random.default_rng(0)
    for _ in range(policies):
        probs = random.dirichlet(np.full(random.integers(2, 30), 0.7)) + 1e-6
        probs /= probs.sum()
        advantages = random.normal(size=len(probs))
        exact = entropy(natural_gradient_step(probs, advantages, learning_rate)) - entropy(probs)
        yield abs(exact - predicted_entropy_change(probs, advantages, learning_rate)), abs(exact)


def test_equation_9_predicts_the_entropy_change_to_second_order():
    whole, half = (np.array(list(errors_of_equation_9(rate))) for rate in (2e-3, 1e-3))
    ratio = whole[:, 0] / half[:, 0]
    assert np.median(ratio) == pytest.approx(4, abs=0.02)  # halving eta quarters the error
    assert np.quantile(ratio, [0.05, 0.95]) == pytest.approx([4, 4], abs=0.2)
    assert np.median(half[:, 0] / half[:, 1]) < 0.01


def test_signs_of_the_entropy_change():
    """Rewarding what is likely lowers entropy, rewarding what is unlikely raises it."""
    probs = np.array([0.7, 0.2, 0.1])
    assert predicted_entropy_change(probs, np.array([1.0, -1, -1]), 0.01) < 0
    assert predicted_entropy_change(probs, np.array([-1.0, -1, 1]), 0.01) > 0
    assert predicted_entropy_change(np.full(4, 0.25), np.array([1.0, 0, 0, -2]), 0.01) == pytest.approx(0)
    assert entropy(np.full(4, 0.25)) == pytest.approx(np.log(4))
