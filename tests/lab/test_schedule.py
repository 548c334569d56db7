"""The rules for both betas: values by hand, bounds, what a run records and that a cut-off run goes on bit for bit."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymlib import make_spec
from asymlib.lab.schedule import RULES, Past, accuracy_balance, anneal, entropy_guard, scheduled
from asymlib.lab.trainer import new_state, steps
from asymlib.methods import get_method
from asymlib.runs.spec import ExperimentSpec

PAIR = (0.9, 0.4)
SHORT = dict(method="asymgrpo", steps=4, prompts_per_step=4, prompts_per_minibatch=4, validation_every=4)


@pytest.mark.parametrize(
    ("rule", "past", "betas"),
    [
        (entropy_guard, Past(entropy=1.0), PAIR),
        (entropy_guard, Past(entropy=1.3), PAIR),  # more entropy than at the start: nothing to guard
        (entropy_guard, Past(entropy=0.75), (1.125, 0.3)),
        (entropy_guard, Past(entropy=0.0), (1.8, 0.0)),
        (anneal, Past(share=0.0), (1.3, 0.3)),
        (anneal, Past(share=0.5), PAIR),
        (anneal, Past(share=1.0), (0.5, 0.5)),
        (accuracy_balance, Past(accuracy=0.5), PAIR),
        (accuracy_balance, Past(accuracy=0.25), (1.35, 0.2)),
        (accuracy_balance, Past(accuracy=1.0), (0.0, 0.8)),
    ],
)
def test_a_rule_by_hand(rule, past, betas):
    assert rule(*PAIR, past) == pytest.approx(betas)


def test_what_a_rule_knows_is_smoothed_from_the_first_step_on():
    first = Past().after(0.1, 0.2, 1.0)
    assert first == Past(0.1, 0.2, 1.0)
    assert first.after(0.2, 0.6, 0.5) == pytest.approx((0.2, 0.22, 0.975))


@given(
    st.sampled_from(sorted(RULES)), st.floats(0, 5), st.floats(0, 5),
    st.builds(Past, st.floats(0, 1), st.floats(0, 1), st.floats(0, 5)),
)  # fmt: skip
def test_betas_stay_at_or_above_0_and_at_most_twice_the_pair_or_grpo(rule, pos, neg, past):
    betas = RULES[rule](pos, neg, past)
    assert all(0 <= found <= 2 * max(given, 0.5) + 1e-9 for found, given in zip(betas, (pos, neg), strict=True))


def test_without_a_rule_the_method_is_the_specs():
    method = get_method("asymgrpo")
    assert scheduled(method, None, Past(0.7, 0.1, 0.2)) is method
    assert set(RULES) | {None} == set(ExperimentSpec.model_fields["beta_schedule"].annotation.__args__[0].__args__) | {None}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"beta_schedule": "cosine"}, "beta_schedule='cosine'"),
        ({"beta_schedule": "anneal", "method": "ent_increase"}, "beta_schedule='anneal': 'ent_increase' has no pair"),
        ({"beta_schedule": "anneal", "policy": "Qwen/Qwen3-4B"}, "beta_schedule='anneal': a rule of the lab"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(wrong, said):
    with pytest.raises(ValueError, match="beta_schedule") as error:
        make_spec(**{"method": "asymgrpo"} | wrong)
    assert said in str(error.value)


def test_ids_without_a_schedule_stay_and_a_schedule_makes_another_run_with_its_own_name():
    plain, ruled = make_spec(**SHORT), make_spec(**SHORT, beta_schedule="anneal")
    assert plain.run_id == make_spec(**SHORT, beta_schedule=None).run_id != ruled.run_id
    assert (plain.variant, ruled.variant) == ("asymgrpo", "asymgrpo beta_schedule=anneal")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_run_records_its_betas_and_goes_on_from_a_snapshot_as_if_never_cut_off(rule, warm_results, small_lab):
    spec = make_spec(**SHORT, beta_schedule=rule)
    whole = list(steps(spec, new_state(spec, warm_results)))
    for metrics, before in zip(whole, range(4), strict=True):
        if rule == "anneal":
            assert (metrics["beta_pos"], metrics["beta_neg"]) == pytest.approx(anneal(*PAIR, Past(before / 4)))
    cut = new_state(spec, warm_results)
    first = list(islice(steps(spec, cut), 2))
    again = new_state(spec, warm_results)
    again.load(cut.to_bytes())
    rest = list(steps(spec, again))
    timeless = [{k: v for k, v in one.items() if not k.startswith("seconds")} for one in whole]
    assert [{k: v for k, v in one.items() if not k.startswith("seconds")} for one in first + rest] == timeless
    assert len({(one["beta_pos"], one["beta_neg"]) for one in whole}) > 1
