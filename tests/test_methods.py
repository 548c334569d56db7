import csv
from pathlib import Path

import numpy as np
import pytest

from asymlib import METHODS, Method, get_method, group_advantages, make_spec
from asymlib.methods import CATALOGUE

TABLE_1 = Path(__file__).parents[1] / "asymlib" / "paper" / "table1.csv"


def test_methods_begin_with_the_rows_of_table_1():
    with TABLE_1.open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] != "base"]
    assert list(METHODS)[: len(rows)] == [row["method"] for row in rows]
    assert [m.label for m in METHODS.values()][: len(rows)] == [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reinforce", {"beta_pos": 0, "beta_neg": 0}),
        ("grpo", {"beta_pos": 0.5, "beta_neg": 0.5, "clip_low": 0.2, "clip_high": 0.2, "entropy_coeff": 0}),
        ("grpo_entropy_reg", {"beta_pos": 0.5, "beta_neg": 0.5, "entropy_coeff": 0.001}),
        ("grpo_clip_higher", {"beta_pos": 0.5, "beta_neg": 0.5, "clip_low": 0.2, "clip_high": 0.28}),
        ("grpo_entropy_adv", {"beta_pos": 0.5, "beta_neg": 0.5, "entropy_advantage": (0.4, 2)}),
        ("dr_grpo", {"beta_pos": None, "loss_aggregation": "seq-mean-token-sum-norm"}),
        ("pass_at_k", {"pass_k": 5, "beta_pos": None}),
        ("pos_only", {"beta_pos": 0.5, "beta_neg": 0}),
        ("neg_only", {"beta_pos": 0, "beta_neg": 0.5}),
        ("asymgrpo_symmetric", {"beta_pos": 0.7, "beta_neg": 0.7, "clip_high": 0.2}),
        ("asymgrpo", {"beta_pos": 0.9, "beta_neg": 0.4, "clip_high": 0.2}),
        ("asymgrpo_clip_higher", {"beta_pos": 0.9, "beta_neg": 0.3, "clip_high": 0.28}),
    ],
)
def test_stated_settings(name, settings):
    assert {key: getattr(METHODS[name], key) for key in settings} == settings


@pytest.mark.parametrize("method", CATALOGUE.values(), ids=lambda m: m.name)
@pytest.mark.parametrize("size", [5, 8, 16])
def test_tables_are_finite_read_only_and_zero_where_nobody_stands(method, size):
    pos, neg = method.table(size)
    assert pos.shape == neg.shape == (size + 1,) and pos.dtype == neg.dtype == np.float64
    assert pos[0] == neg[size] == 0
    assert np.isfinite(pos).all() and np.isfinite(neg).all() and (pos >= 0).all() and (neg <= 0).all()
    for side in (pos, neg):
        with pytest.raises(ValueError, match="read-only"):
            side[0] = 1


def test_who_trains_on_groups_without_contrast():
    trains_on_all_right = {name for name, m in METHODS.items() if m.table(8)[0][8] != 0}
    trains_on_all_wrong = {name for name, m in METHODS.items() if m.table(8)[1][0] != 0}
    assert trains_on_all_right == {"reinforce", "neg_only", "ent_decrease"}
    assert trains_on_all_wrong == {"reinforce", "pos_only", "ent_increase"}


def test_dr_grpo_is_reward_minus_accuracy():
    pos, neg = METHODS["dr_grpo"].table(4)
    np.testing.assert_allclose(pos, [0, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(neg, [0, -0.25, -0.5, -0.75, 0])


# By hand at G = 3: REINFORCE gives +1 and -1 wherever a rollout can be; GRPO has 0 at both ends without a mask.
ROOT_2 = 1.4142135623730951


@pytest.mark.parametrize(
    ("name", "masks", "pos", "neg"),
    [
        ("reinforce", {}, [0, 1, 1, 1], [-1, -1, -1, 0]),
        ("reinforce", {"mask_none_solved": True}, [0, 1, 1, 1], [0, -1, -1, 0]),
        ("reinforce", {"mask_all_solved": True}, [0, 1, 1, 0], [-1, -1, -1, 0]),
        ("reinforce", {"mask_none_solved": True, "mask_all_solved": True}, [0, 1, 1, 0], [0, -1, -1, 0]),
        ("neg_only", {"mask_all_solved": True}, [0, 1, 1, 0], [0, -1 / ROOT_2, -ROOT_2, 0]),
        ("grpo", {"mask_none_solved": True, "mask_all_solved": True}, [0, ROOT_2, 1 / ROOT_2, 0], [0, -1 / ROOT_2, -ROOT_2, 0]),
    ],
)
def test_masks_give_nothing_to_groups_without_contrast(name, masks, pos, neg):
    np.testing.assert_allclose(get_method(name, **masks).table(3), (pos, neg), rtol=1e-12)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (["mask_none_solved"], [0, 0, 1, 1, -1, 1]),
        (["mask_all_solved"], [-1, -1, 0, 0, -1, 1]),
        (["mask_none_solved", "mask_all_solved"], [0, 0, 0, 0, -1, 1]),
    ],
)
def test_masks_in_a_batch_with_a_none_an_all_and_a_half_solved_group(masks, expected):
    method = get_method("reinforce", **dict.fromkeys(masks, True))
    assert group_advantages(np.array([0.0, 0, 1, 1, 0, 1]), list("aabbcc"), method).tolist() == expected


def test_a_masked_method_is_a_variant_of_its_own():
    masked = make_spec(method="reinforce", mask_none_solved=True)
    assert masked.variant == "reinforce mask_none_solved=True" and masked.method_changes == {"mask_none_solved": True}
    assert masked.run_id != make_spec(method="reinforce").run_id == make_spec(method="reinforce", mask_none_solved=False).run_id


def test_changes_make_a_variant_and_leave_the_method():
    variant = get_method("asymgrpo", beta_pos=0.75, clip_high=0.3)
    assert (variant.beta_pos, variant.beta_neg, variant.clip_high) == (0.75, 0.4, 0.3)
    assert METHODS["asymgrpo"].beta_pos == 0.9
    assert variant.table(8)[0][1] == pytest.approx(7**0.75)
    with pytest.raises(ValueError):
        METHODS["grpo"].beta_pos = 1.0
    with pytest.raises(TypeError):
        METHODS["mine"] = variant


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("asymgrp", {}, "unknown method 'asymgrp': did you mean 'asymgrpo'"),
        ("xyz", {}, "unknown method 'xyz': allowed: reinforce, grpo, "),
        ("grpo", {"beta_po": 1}, "unknown method setting 'beta_po': did you mean 'beta_pos'"),
        ("grpo", {"curve": "pass_at_k"}, "unknown method setting 'curve'"),
        ("grpo", {"beta_pos": -1}, "beta_pos=-1: "),
        ("grpo", {"beta_pos": float("nan")}, "beta_pos=nan: "),
        ("grpo", {"beta_pos": "high"}, "beta_pos='high': "),
        ("grpo", {"beta_pos": None}, "beta_pos=None: needs a value for curve 'beta' of method 'grpo'"),
        ("dr_grpo", {"beta_pos": 0.5}, "beta_pos=0.5: must stay unset for curve 'mean_baseline' of method 'dr_grpo'"),
        ("grpo", {"pass_k": 5}, "pass_k=5: must stay unset"),
        ("pass_at_k", {"pass_k": 0}, "pass_k=0: "),
        ("grpo", {"mask_none_solved": "some"}, "mask_none_solved='some': "),
        ("grpo", {"clip_low": 1.0}, "clip_low=1.0: "),
        ("grpo", {"loss_aggregation": "mean"}, "loss_aggregation='mean': "),
    ],
)
def test_refusals_are_one_sentence(name, changes, message):
    with pytest.raises(ValueError) as error:
        get_method(name, **changes)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "size"), [("ent_increase", 2), ("ent_decrease", 1), ("pass_at_k", 4), ("grpo", 0)])
def test_small_groups_are_refused_where_the_curve_needs_more(name, size):
    with pytest.raises(ValueError, match="group_size"):
        METHODS[name].table(size)


def test_a_method_refuses_unknown_fields():
    with pytest.raises(ValueError, match="extra"):
        Method(name="x", label="x", source="x", beta_pos=0, beta_neg=0, gamma=1)
