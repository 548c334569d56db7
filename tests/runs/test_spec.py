import subprocess
import sys

import pytest

from asymlib import ExperimentSpec, make_spec
from asymlib.runs.spec import POLICY_DEFAULTS


def test_run_id_is_stable_across_processes_and_field_order():
    program = (
        "from asymlib import make_spec; "
        "print(make_spec(seed=3, clip_high=0.3, beta_pos=0.75, steps=7, policy='base', method='asymgrpo').run_id)"
    )
    spec = make_spec(method="asymgrpo", beta_pos=0.75, clip_high=0.3, policy="base", seed=3, steps=7)
    for hash_seed in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert other.stdout.strip() == spec.run_id
    assert len(spec.run_id) == 12 and int(spec.run_id, 16) >= 0


def test_run_id_survives_json():
    spec = make_spec(method="grpo_entropy_adv", entropy_advantage=[0.4, 2.5], seed=9)
    assert ExperimentSpec.model_validate_json(spec.model_dump_json()).run_id == spec.run_id


def test_every_field_is_part_of_the_run_id():
    base = make_spec(method="grpo", policy="small")
    changed = {
        "method": "asymgrpo",
        "method_changes": {"beta_pos": 0.75},
        "policy": "base",
        "seed": 1,
        "steps": 101,
        "profile": "lab",
        "group_size": 16,
        "prompts_per_step": 64,
        "prompts_per_minibatch": 16,
        "learning_rate": 1e-3,
        "lr_warmup_steps": 0,
        "validation_every": 5,
        "warmup_seed": 1,
        "task": "countdown",
        "beta_schedule": "anneal",
        "exploration_temperatures": [1.0, 0.5],
    }
    assert set(changed) == set(ExperimentSpec.model_fields) - {
        "engine",
        "max_response_tokens",
        "increment_every",
    }  # the lab fixes those
    ids = {make_spec(**({"method": "grpo"} | {field: value})).run_id for field, value in changed.items()}
    assert len(ids | {base.run_id}) == len(changed) + 1
    fields = ({}, {"max_response_tokens": 2048}, {"increment_every": 5})
    on_verl = [make_spec(method="grpo", policy="Qwen/Qwen3-4B", **changes).run_id for changes in fields]
    assert len({base.run_id, *on_verl}) == 4 and on_verl[0] == "c46652aca7ce"  # of before increment_every was a field
    with pytest.raises(ValueError, match="increment_every=5: the lab measures the increment at every step"):
        make_spec(method="grpo", increment_every=5)


@pytest.mark.parametrize("policy", POLICY_DEFAULTS)
def test_a_policy_brings_its_defaults_and_the_spec_overrules_them(policy):
    spec = make_spec(method="grpo", policy=policy)
    assert {field: getattr(spec, field) for field in POLICY_DEFAULTS[policy]} == POLICY_DEFAULTS[policy]
    assert make_spec(method="grpo", policy=policy, learning_rate=0.5).learning_rate == 0.5
    assert make_spec(method="grpo", policy=policy, **POLICY_DEFAULTS[policy]).run_id == spec.run_id


def test_stated_settings_of_the_papers_models():
    small, large = (make_spec(method="grpo", policy=f"Qwen/{name}") for name in ("Qwen2.5-Math-1.5B", "Qwen3-4B"))
    assert (small.prompts_per_step, small.prompts_per_minibatch, small.max_response_tokens) == (512, 128, 2560)
    assert (large.prompts_per_step, large.prompts_per_minibatch, large.max_response_tokens) == (128, 64, 4096)
    for spec in (small, large):
        assert (spec.engine, spec.group_size, spec.learning_rate, spec.validation_every) == ("verl", 8, 2e-6, 10)


def test_method_settings_stand_beside_the_fields():
    spec = make_spec(method="asymgrpo", beta_pos=0.75, method_changes={"clip_high": 0.3})
    assert spec.method_changes == {"beta_pos": 0.75, "clip_high": 0.3}
    assert spec.variant == "asymgrpo beta_pos=0.75 clip_high=0.3"
    assert make_spec(method="grpo", clip_high=0.3, group_size=16).variant == "grpo clip_high=0.3 group_size=16"
    assert (spec.resolved_method.beta_pos, spec.resolved_method.beta_neg) == (0.75, 0.4)
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "method is missing: allowed: reinforce, grpo, "),
        ({"method": "asymgrop"}, "unknown method 'asymgrop': did you mean 'asymgrpo'"),
        ({"method": 3}, "method=3: "),
        ({"stepz": 3}, "unknown parameter 'stepz': did you mean 'steps'?"),
        ({"beta_po": 3}, "unknown parameter 'beta_po': did you mean 'beta_pos'"),
        ({"method_changes": {"x": 1}}, "unknown method setting 'x': allowed: beta_pos, "),
        ({"seed": "x"}, "seed='x': "),
        ({"seed": 1.5}, "seed=1.5: "),
        ({"seed": -1}, "seed=-1: "),
        ({"steps": 0}, "steps=0: "),
        ({"learning_rate": float("nan")}, "learning_rate=nan: "),
        ({"learning_rate": None}, "learning_rate=None: "),
        ({"beta_pos": "high"}, "beta_pos='high': "),
        ({"profile": "quik"}, "profile='quik': did you mean 'quick'?"),
        ({"engine": "ray"}, "engine='ray': "),
        ({"policy": 3}, "policy='3': "),
        ({"policy": "smal"}, "policy='smal': no Hugging Face id or folder; did you mean 'small'?"),
        ({"method_changes": 5}, "method_changes=5: must be a mapping"),
        ({"policy": "Qwen/Qwen3-4B", "engine": "lab"}, "policy='Qwen/Qwen3-4B': the lab trains small and base"),
        ({"policy": "bse", "engine": "lab"}, "policy='bse': no Hugging Face id or folder; did you mean 'base'?"),
        ({"policy": "small", "engine": "verl"}, "policy='small': engine 'verl' needs a Hugging Face id or folder"),
        ({"prompts_per_step": 10}, "prompts_per_minibatch=8: must divide prompts_per_step=10"),
        ({"max_response_tokens": 20}, "max_response_tokens=20: the lab's task 'walk' needs 13"),
        ({"method": "ent_decrease", "group_size": 2}, "group_size=2: a flipped curve needs "),
        ({"method": "pass_at_k", "group_size": 4}, "pass_k=5: must lie in 1..group_size (4)"),
    ],
)
def test_refusals_are_one_sentence_that_names_the_field(fields, message):
    with pytest.raises(ValueError) as error:
        make_spec(**({"method": "grpo"} | fields if fields else {}))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_changes_that_change_nothing_and_other_spellings_are_the_same_run():
    assert make_spec(method="grpo", beta_pos=0.5) == make_spec(method="grpo")
    assert make_spec(method="grpo", beta_pos=1).run_id == make_spec(method="grpo", beta_pos="1.0").run_id


class WithTask(ExperimentSpec):
    """The spec as it will be with a field that came after the first records."""

    task: str = "walk"


def test_a_field_that_came_later_keeps_the_ids_of_specs_that_leave_it_at_its_default():
    spec = make_spec(method="grpo", seed=3)
    assert WithTask.model_validate_json(spec.model_dump_json()).run_id == spec.run_id  # a spec.json that lacks the field
    assert WithTask(method="grpo", seed=3, task="walk").run_id == spec.run_id
    assert WithTask(method="grpo", seed=3, task="countdown").run_id != spec.run_id
