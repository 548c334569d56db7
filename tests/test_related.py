"""Each relative against values computed by hand from its own paper's formula, and against the field's code where it is here."""

import re
from itertools import combinations, product
from math import comb, e, exp, sqrt

import numpy as np
import pytest

from asymlib import METHODS, RELATED, get_method, group_advantages, make_spec
from asymlib.methods import CATALOGUE
from asymlib.related import mean_advantages

R3 = sqrt(3)  # at G = 4 and k = 1, 2, 3 right, GRPO (population deviation) gives R3, 1, 1/R3 and -1/R3, -1, -R3
EASY, HARD = exp(0.25), exp(-0.25)

# What a right rollout gets for k = 1..4 of G = 4, and a wrong one for k = 0..3.
BY_HAND = {
    # reward minus the mean of the other three: k = 2: 1 - 1/3, 0 - 2/3
    "rloo": ([1, 2 / 3, 1 / 3, 0], [0, -1 / 3, -2 / 3, -1]),
    # [1, 0, 0, 0]: mean 1/4, squared deviations 9/16 + 3/16 = 3/4, over 3: deviation 1/2
    "grpo_sample_std": ([1.5, R3 / 2, 0.5, 0], [0, -0.5, -R3 / 2, -1.5]),
    "psr": ([1, 1, 1, 1], [0, 0, 0, 0]),
    "nsr": ([0, 0, 0, 0], [-1, -1, -1, -1]),
    "w_reinforce": ([0.1, 0.1, 0.1, 0.1], [-1, -1, -1, -1]),
    "reinforce_rej": ([1, 1, 1, 0], [0, -1, -1, -1]),
    # (r - p) / p: k = 1: (3/4) / (1/4)
    "maxrl": ([3, 1, 1 / 3, 0], [0, -1, -1, -1]),
    # [1, 0, 0, 0]: mean absolute deviation (3/4 + 3 * 1/4) / 4 = 3/8
    "dgae": ([2, 1, 2 / 3, 0], [0, -2 / 3, -1, -2]),
    # sqrt(1 - p) times GRPO: k = 1: sqrt(3)/2 * R3
    "f_grpo": ([1.5, sqrt(0.5), 0.5 / R3, 0], [0, -0.5, -sqrt(0.5), -R3 / 2]),
    # (1 - p) (r - p): k = 1: 3/4 * 3/4
    "power": ([9 / 16, 1 / 4, 1 / 16, 0], [0, -3 / 16, -1 / 4, -3 / 16]),
    # 0.5 GRPO / sqrt(p): k = 3: 0.5 / R3 / (R3 / 2)
    "hard_focused": ([R3, sqrt(0.5), 1 / 3, 0], [0, -1 / R3, -sqrt(0.5), -1]),
    "easy_focused": ([1, sqrt(0.5), 1 / R3, 0], [0, -1 / 3, -sqrt(0.5), -R3]),
    "positive_dominant": ([10 * R3, 10, 10 / R3, 0], [0, -1 / R3, -1, -R3]),
    "negative_dominant": ([R3 / 10, 0.1, 0.1 / R3, 0], [0, -1 / R3, -1, -R3]),
    # five rewards with a virtual 1: [1, 0, 0, 0, 0] has mean 0.2 and sample variance 0.2, two right ones 0.4 and 0.3
    "ngrpo": (
        [0.6 / sqrt(0.3), 0.4 / sqrt(0.3), 0.2 / sqrt(0.2), 0],
        [-sqrt(0.2), -0.4 / sqrt(0.3), -0.6 / sqrt(0.3), -0.8 / sqrt(0.2)],
    ),
    # mean of e^(2r): k = 1: (e^2 + 3) / 4
    "rs_grpo": (
        [(4 * e**2 / (k * e**2 + 4 - k) - 1) / 2 for k in (1, 2, 3, 4)],
        [(4 / (k * e**2 + 4 - k) - 1) / 2 for k in (0, 1, 2, 3)],
    ),
    # one subset of four: only the single right one raises its maximum, by 1; times G
    "pkpo": ([4, 0, 0, 0], [0, 0, 0, 0]),
    "best_sample": ([1, 0, 0, 0], [0, 0, 0, 0]),
    # 1.3 GRPO e^(0.5 - p) for right, e^(p - 0.5) for wrong
    "ha_dw_fixed": ([1.3 * R3 * EASY, 1.3, 1.3 / R3 * HARD, 0], [0, -1.3 / R3 * HARD, -1.3, -1.3 * R3 * EASY]),
}


def test_every_relative_has_values_by_hand_and_none_is_in_table_1():
    assert set(BY_HAND) == set(RELATED) and len(RELATED) >= 12
    assert len(METHODS) == 14 and not set(METHODS) & set(RELATED)
    assert list(CATALOGUE) == [*METHODS, *RELATED]


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand_at_g4(name):
    pos, neg = get_method(name).table(4)
    np.testing.assert_allclose(pos, [0, *BY_HAND[name][0]], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(neg, [*BY_HAND[name][1], 0], rtol=1e-12, atol=1e-12)


def test_values_that_papers_print():
    """NGRPO's Figure 3: one right of eight gets 1.76 and -0.50; F-GRPO's Section 4.1: gamma = 0 is GRPO."""
    pos, neg = RELATED["ngrpo"].table(8)
    assert (round(pos[1], 2), round(neg[1], 2), round(neg[0], 2)) == (1.76, -0.50, -0.33)
    np.testing.assert_allclose(get_method("f_grpo", power_q=-0.5).table(8), METHODS["grpo"].table(8), rtol=1e-12)


@pytest.mark.parametrize(("size", "k"), [(4, 2), (6, 4), (8, 4), (5, 5)])
def test_pkpo_is_the_mean_over_subsets_of_what_a_rollout_adds(size, k):
    pos, neg = get_method("pkpo", pass_k=k).table(size)
    for right in range(size + 1):
        rewards = [1] * right + [0] * (size - right)
        for i, reward in enumerate(rewards):
            adds = [
                max(rewards[j] for j in subset) - max((rewards[j] for j in subset if j != i), default=0)
                for subset in combinations(range(size), k)
                if i in subset
            ]
            assert (pos if reward else neg)[right] == pytest.approx(size * sum(adds) / comb(size, k))


def grid(size):
    return np.arange(size + 1) / size


@pytest.mark.parametrize("size", [5, 8, 16])
def test_which_estimators_coincide(size):
    p, tables = grid(size), {name: np.array(method.table(size)) for name, method in CATALOGUE.items()}
    same = np.testing.assert_allclose
    same(tables["rloo"], tables["dr_grpo"] * size / (size - 1), atol=1e-12)
    same(tables["grpo_sample_std"], tables["grpo"] * sqrt((size - 1) / size), atol=1e-12)
    same(tables["maxrl"], get_method("reinforce", beta_pos=1, mask_none_solved=True).table(size), atol=1e-12)
    same(tables["psr"] + tables["nsr"], tables["reinforce"])
    same(get_method("w_reinforce", weight_pos=1).table(size), tables["reinforce"])
    same(tables["reinforce_rej"], get_method("reinforce", mask_none_solved=True, mask_all_solved=True).table(size))
    same(get_method("pass_at_k", pass_k=1).table(size), tables["grpo"], atol=1e-12)
    same(get_method("pkpo", pass_k=1).table(size), tables["psr"])
    same(get_method("pkpo", pass_k=size).table(size), size * tables["best_sample"])
    same(tables["power"], np.array(get_method("power", power_q=0).table(size)) * (1 - p), atol=1e-12)
    same(get_method("power", power_q=0).table(size), tables["dr_grpo"], atol=1e-12)
    virtual = get_method("grpo_sample_std").table(size + 1)  # NGRPO's group has one more, which is right
    same(tables["ngrpo"][0][1:], virtual[0][2:], atol=1e-12)
    same(tables["ngrpo"][1][:-1], virtual[1][1:-1], atol=1e-12)


@pytest.mark.parametrize("betas", [(0.5, 0.5), (1, 0), (0.9, 0.1), (0.3, 0.7)])
def test_betas_that_sum_to_one_are_the_centred_family_in_mixed_groups(betas):
    beta_pos, beta_neg = betas
    own = np.array(get_method("grpo", beta_pos=beta_pos, beta_neg=beta_neg).table(8))
    centred = np.array(get_method("maxrl", power_p=-beta_pos, power_q=-beta_neg).table(8))
    np.testing.assert_allclose(own[:, 1:-1], centred[:, 1:-1], rtol=1e-12)


@pytest.mark.parametrize("name", [name for name, method in RELATED.items() if method.curve == "centred"])
def test_the_centred_family_sums_to_zero_in_every_group(name):
    pos, neg = RELATED[name].table(8)
    k = np.arange(9)
    np.testing.assert_allclose(k * pos + (8 - k) * neg, 0, atol=1e-12)


def test_weights_multiply_a_side_of_any_curve():
    pos, neg = METHODS["asymgrpo"].table(8)
    np.testing.assert_allclose(get_method("asymgrpo", weight_pos=0.1, weight_neg=2).table(8), (0.1 * pos, 2 * neg))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_expected_update_is_the_gradient_of_the_surrogate(name):
    """A softmax over four answers, two right: the mean update over all 4^5 groups is F'(p) times the gradient of p."""
    probs, right, size = np.array([0.5, 0.1, 0.3, 0.1]), np.array([1.0, 1, 0, 0]), 5
    scores = np.eye(4) - probs  # row y: gradient of log pi(y) in the logits
    groups_NG = np.array(list(product(range(4), repeat=size)))
    advantages_N = group_advantages(right[groups_NG].ravel(), np.repeat(np.arange(4**size), size), CATALOGUE[name])
    updates = (advantages_N.reshape(-1, size, 1) * scores[groups_NG]).mean(1)
    p = probs @ right
    of_right, of_wrong = mean_advantages(CATALOGUE[name].table(size), p)
    np.testing.assert_allclose(probs[groups_NG].prod(1) @ updates, (of_right - of_wrong) * probs * (right - p), atol=1e-12)


def test_surrogates_that_are_known():
    """RLOO is unbiased for p; PKPO for pass@k; MaxRL sums pass@k / k up to G - 1 (its Theorem 5); all by hand at p = 1/2."""
    derivative = {name: np.subtract(*mean_advantages(RELATED[name].table(8), 0.5)) for name in ("rloo", "pkpo", "maxrl")}
    assert derivative == pytest.approx({"rloo": 1, "pkpo": 4 * 0.5**3, "maxrl": 2 * (1 - 0.5**7)})


@pytest.mark.parametrize("method", RELATED.values(), ids=lambda m: m.name)
def test_sources_name_the_paper_and_say_how_the_formula_was_read(method):
    assert "arXiv 2" in method.source
    assert re.search(r"\bread(er|\b)|code|implementations", method.source)
    assert re.search(r"Eq\. \d|Table \d|Algorithm \d|without a number|not verified|verl", method.source)


@pytest.mark.parametrize("name", RELATED)
def test_a_relative_is_a_method_like_any_other(name):
    spec = make_spec(method=name, seed=1)
    assert spec.variant == name and spec.resolved_method == RELATED[name]
    rewards = np.array([1.0, 0, 0, 0])
    pos, neg = RELATED[name].table(4)
    np.testing.assert_allclose(group_advantages(rewards, ["x"] * 4, RELATED[name]), [pos[1], *[neg[1]] * 3])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("maxlr", {}, "unknown method 'maxlr': did you mean 'maxrl'"),
        ("maxrl", {"power_p": None}, "power_p=None: needs a value for curve 'centred' of method 'maxrl'"),
        ("grpo", {"power_p": 1}, "power_p=1.0: must stay unset for curve 'beta' of method 'grpo'"),
        ("rs_grpo", {"risk": 0}, "risk=0: "),
        ("ha_dw_fixed", {"anchor": 1.5}, "anchor=1.5: "),
        ("psr", {"weight_pos": -1}, "weight_pos=-1: "),
    ],
)
def test_refusals_are_one_sentence(name, changes, message):
    with pytest.raises(ValueError) as error:
        get_method(name, **changes)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "size"), [("rloo", 1), ("grpo_sample_std", 1), ("best_sample", 1), ("pkpo", 3)])
def test_small_groups_are_refused_where_the_curve_needs_more(name, size):
    with pytest.raises(ValueError, match="group_size"):
        RELATED[name].table(size)
