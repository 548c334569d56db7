import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asymlib import METHODS, get_method, group_advantages, negative_advantage, positive_advantage
from asymlib.advantages import add_entropy_advantage, beta_table, group_accuracies, pass_at_k_table

ROOT3, ROOT7 = 3**0.5, 7**0.5
GRPO, REINFORCE = METHODS["grpo"], METHODS["reinforce"]

rows = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40)  # (group, right?) of each rollout
betas = st.floats(0, 3, allow_nan=False)


def split(rows):
    return np.array([r for _, r in rows], dtype=float), [g for g, _ in rows]


@pytest.mark.parametrize(
    ("method", "rewards", "expected"),
    [
        ("grpo", [1, 0, 0, 0], [ROOT3, -1 / ROOT3, -1 / ROOT3, -1 / ROOT3]),
        ("reinforce", [1, 0, 0, 0], [1, -1, -1, -1]),
        ("dr_grpo", [1, 0, 0, 0], [0.75, -0.25, -0.25, -0.25]),
        ("pos_only", [1, 0, 0, 0], [ROOT3, -1, -1, -1]),
        ("neg_only", [1, 0, 0, 0], [1, -1 / ROOT3, -1 / ROOT3, -1 / ROOT3]),
        ("asymgrpo", [1, 0, 0, 0], [3**0.9, -(3**-0.4), -(3**-0.4), -(3**-0.4)]),
        # One right of four lies on the flip's inner part: A~_pos(1/4) = A_pos(3/4).
        ("ent_decrease", [1, 0, 0, 0], [1 / ROOT3, -1 / ROOT3, -1 / ROOT3, -1 / ROOT3]),
        ("ent_increase", [1, 0, 0, 0], [ROOT3, -ROOT3, -ROOT3, -ROOT3]),
        # All right, all wrong: only a curve with beta = 0, or a flipped end, still trains.
        *[(m, [1] * 4, [0] * 4) for m in ("grpo", "pos_only", "dr_grpo", "asymgrpo", "asymgrpo_symmetric", "ent_increase")],
        *[(m, [0] * 4, [0] * 4) for m in ("grpo", "neg_only", "dr_grpo", "asymgrpo", "asymgrpo_symmetric", "ent_decrease")],
        *[(m, [1] * 4, [1] * 4) for m in ("reinforce", "neg_only")],
        *[(m, [0] * 4, [-1] * 4) for m in ("reinforce", "pos_only")],
        ("ent_decrease", [1] * 8, [2 * ROOT7 - ROOT3] * 8),
        ("ent_increase", [0] * 8, [ROOT3 - 2 * ROOT7] * 8),
        # A group of one is all right or all wrong.
        *[(m, [r], [0]) for m in ("grpo", "asymgrpo", "dr_grpo") for r in (0, 1)],
        ("reinforce", [1], [1]),
        ("reinforce", [0], [-1]),
    ],
)
def test_hand_computed_groups(method, rewards, expected):
    np.testing.assert_allclose(group_advantages(np.array(rewards), ["g"] * len(rewards), METHODS[method]), expected, rtol=1e-12)


def test_curves_at_the_boundaries():
    assert positive_advantage(0.0, 0.5) == np.inf and negative_advantage(1.0, 0.5) == -np.inf
    assert positive_advantage(1.0, 0.5) == 0 and negative_advantage(0.0, 0.5) == 0
    for p in (0.0, 0.3, 1.0):  # 0^0 = 1: REINFORCE
        assert positive_advantage(p, 0) == 1 and negative_advantage(p, 0) == -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        positive_advantage([0, 0.5, 1], 0.5)
        negative_advantage([0, 0.5, 1], 0.5)


@given(st.floats(0.01, 0.99), betas)
def test_curves_are_mirrored_and_float64(p, beta):
    # In float32 p is rounded, the advantage is not.
    assert positive_advantage(p, beta) == pytest.approx(-negative_advantage(1 - p, beta), rel=1e-9)
    assert positive_advantage(np.float32(p), beta).dtype == np.float64
    assert positive_advantage(p, beta) * -negative_advantage(p, beta) == pytest.approx(1)
    assert np.shape(positive_advantage(np.full((2, 3), p), beta)) == (2, 3)


@given(rows)
def test_grpo_is_equation_4_with_the_population_std(rows):
    rewards, groups = split(rows)
    advantages = group_advantages(rewards, groups, GRPO)
    for group in set(groups):
        mine = np.array([g == group for g in groups])
        std = rewards[mine].std()
        expected = (rewards[mine] - rewards[mine].mean()) / std if std else np.zeros(mine.sum())
        np.testing.assert_allclose(advantages[mine], expected, rtol=1e-9, atol=1e-12)


def test_verls_grpo_is_smaller_by_the_bessel_correction():
    rewards = np.array([1, 0, 0, 1, 0, 0, 0, 0.0])
    verl = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    np.testing.assert_allclose(verl / group_advantages(rewards, [0] * 8, GRPO), (7 / 8) ** 0.5, rtol=1e-5)


@given(rows)
def test_reinforce_is_two_r_minus_one_whatever_the_groups(rows):
    rewards, groups = split(rows)
    np.testing.assert_array_equal(group_advantages(rewards, groups, REINFORCE), 2 * rewards - 1)


@given(rows, st.sampled_from(["grpo", "asymgrpo", "reinforce", "dr_grpo"]), st.randoms(use_true_random=False))
def test_permuting_rows_permutes_advantages(rows, method, random):
    rewards, groups = split(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    permuted = group_advantages(rewards[order], [groups[i] for i in order], METHODS[method])
    np.testing.assert_array_equal(permuted, group_advantages(rewards, groups, METHODS[method])[order])


@given(rows)
def test_any_hashable_ids_name_the_same_groups(rows):
    rewards, groups = split(rows)
    expected = group_advantages(rewards, groups, GRPO)
    tuples = np.empty(len(groups), dtype=object)
    tuples[:] = [("prompt", g) for g in groups]
    mixed = [(0, "one", ("two",), b"four", frozenset({4}))[g] for g in groups]
    strings = [f"id-{g}" for g in groups]
    for ids in (
        np.array(groups),
        np.array(strings, dtype=object),
        np.array(strings),
        strings,
        tuples,
        mixed,
        torch.tensor(groups),
    ):
        np.testing.assert_array_equal(group_advantages(rewards, ids, GRPO), expected)


def test_unequal_groups_use_their_own_tables():
    rewards, groups = np.array([1, 1, 0, 0, 0, 1, 0, 1, 0]), list("abababccc")
    for method in METHODS.values():
        if method.curve != "beta":
            continue
        expected = np.empty(len(rewards))
        for group in "abc":
            mine = np.array(groups) == group
            pos, neg = method.table(mine.sum())
            k = rewards[mine].sum()
            expected[mine] = np.where(rewards[mine] == 1, pos[k], neg[k])
        np.testing.assert_array_equal(group_advantages(rewards, groups, method), expected)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_torch_in_torch_out(dtype, device):
    values, groups = [1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 0]
    rewards = torch.tensor(values, dtype=dtype, device=device)
    advantages = group_advantages(rewards, torch.tensor(groups, device=device), METHODS["asymgrpo"])
    assert advantages.dtype == (dtype if dtype.is_floating_point else torch.get_default_dtype())
    assert advantages.device == rewards.device and not advantages.requires_grad
    exact = group_advantages(np.array(values), groups, METHODS["asymgrpo"])
    torch.testing.assert_close(advantages.cpu(), torch.tensor(exact).to(advantages.dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.bool_, object])
def test_numpy_in_numpy_out(dtype):
    advantages = group_advantages(np.array([1, 0, 0, 0], dtype=dtype), [0] * 4, GRPO)
    assert advantages.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float64)
    np.testing.assert_allclose(advantages, [ROOT3, *[-1 / ROOT3] * 3], rtol=1e-3)


def test_no_rollouts_give_no_advantages():
    assert group_advantages(np.array([]), [], GRPO).shape == (0,)
    assert group_advantages(torch.zeros(0), [], GRPO).shape == (0,)


@pytest.mark.parametrize(
    ("rewards", "groups", "message"),
    [
        (np.array([1, 0, 0.5, 2]), [0, 0, 0, 0], r"rewards\[2\]=0.5: every reward must be 0 or 1"),
        (np.array([1, np.nan, 7]), [0, 0, 0], r"rewards\[1\]=nan"),
        (torch.tensor([-1.0, 1.0]), [0, 0], r"rewards\[0\]=-1.0"),
        ([1, None], [0, 0], r"rewards\[1\]=None"),
        (["1", "0"], [0, 0], r"rewards\[0\]=1"),
        (np.ones(3), [0, 0], r"rewards has shape \(3,\), groups has length 2"),
        (np.ones((2, 2)), [0, 0], r"rewards has shape \(2, 2\)"),
    ],
)
def test_wrong_rewards_are_refused_by_name_and_position(rewards, groups, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, groups, GRPO)


@pytest.mark.parametrize("curve", [positive_advantage, negative_advantage])
@pytest.mark.parametrize(
    ("p", "beta", "message"),
    [
        (-0.1, 0.5, "p="),
        (1.5, 0.5, "p="),
        (np.nan, 0.5, "p="),
        ([0.5, np.nan], 0.5, "p=.*nan"),
        (0.5, -1, "beta=-1"),
        (0.5, np.nan, "beta=nan"),
        (0.5, np.inf, "beta=inf"),
        (0.5, 100.5, "beta=100.5: must be a finite number >= 0 and <= 100"),
        (0.5, False, "beta=False"),
    ],
)
def test_curves_refuse_what_has_no_meaning(curve, p, beta, message):
    with pytest.raises(ValueError, match=message):
        curve(p, beta)


@pytest.mark.parametrize("size", [0, -1, 2.0, "8"])
def test_a_group_needs_a_whole_number_of_rollouts(size):
    with pytest.raises(ValueError, match="group_size="):
        group_accuracies(size)


def test_pass_at_k_numbers_of_the_paper():
    pos, neg = pass_at_k_table(8, 5)
    np.testing.assert_allclose(pos[1:4], [0.775, 0.346, 0.135], atol=5e-4)
    np.testing.assert_allclose(neg[1:4], [-0.111, -0.115, -0.081], atol=5e-4)
    assert not pos[4:].any() and not neg[4:].any() and not neg[0]
    with pytest.raises(ValueError, match="pass_k=5"):
        get_method("pass_at_k").table(4)


@given(st.integers(2, 12), st.integers(1, 12))
def test_pass_at_k_equals_the_mean_over_all_subsets(size, k):
    """Its definition: a subset of k rollouts is rewarded 1 if any of them is right; standardise, average by rollout."""
    k = min(k, size)
    subsets = list(combinations(range(size), k))
    pos, neg = pass_at_k_table(size, k)
    for right in range(size + 1):
        scores = np.array([any(i < right for i in subset) for subset in subsets], dtype=float)
        if scores.std() == 0:
            continue
        scores = (scores - scores.mean()) / scores.std()
        of = [np.mean([s for s, subset in zip(scores, subsets, strict=True) if i in subset]) for i in range(size)]
        np.testing.assert_allclose(of, [pos[right]] * right + [neg[right]] * (size - right), rtol=1e-9, atol=1e-9)


@given(st.integers(2, 64), betas)
def test_right_gets_at_least_zero_and_wrong_at_most_zero(size, beta):
    pos, neg = beta_table(size, beta, beta)
    assert (pos[1:] >= 0).all() and (neg[:-1] <= 0).all()
    assert (np.diff(pos[1:]) <= 0).all() and (np.diff(neg[:-1]) <= 0).all()


def test_entropy_advantage_by_hand():
    advantages = torch.tensor([[2.0, 2.0, -1.0, -1.0, 0.0]])
    entropy = torch.tensor([[0.5, 9.0, 0.5, 9.0, 9.0]])
    shaped = add_entropy_advantage(advantages, entropy, alpha=0.4, kappa=2.0)
    # min(0.4 H, |A| / 2): small entropies count in full, large ones are capped and can never turn a sign.
    torch.testing.assert_close(shaped, torch.tensor([[2.2, 3.0, -0.8, -0.5, 0.0]]))


def test_entropy_advantage_is_detached():
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    shaped = add_entropy_advantage(torch.ones(1, 3), entropy, 0.4, 2.0)
    assert entropy.requires_grad and not shaped.requires_grad


@pytest.mark.parametrize("nobody", [None, float("nan"), pd.NA, pd.NaT])
def test_what_is_missing_is_no_group(nobody):
    with pytest.raises(ValueError, match=r"groups\[1\]=.*: no group id"):
        group_advantages([1, 0], ["a", nobody], METHODS["grpo"])
