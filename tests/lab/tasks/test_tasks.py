"""What the lab asks of every task: a new one passes these without a line here."""

import pytest
import torch

from asymlib import make_spec
from asymlib.lab.policy import SHAPES, Policy
from asymlib.lab.sampler import sample
from asymlib.lab.tasks import EOS, TASKS, Task, to_text
from asymlib.lab.warmup import WarmUp
from asymlib.runs.spec import TASK_DEFAULTS


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


def test_a_task_has_the_interfaces_names_and_the_specs_lengths(name):
    task = TASKS[name]
    assert all(
        hasattr(task, wanted) for wanted in (*Task.__annotations__, *(n for n in vars(Task) if n.islower() and n[0] != "_"))
    )
    assert set(TASKS) == set(TASK_DEFAULTS)
    assert TASK_DEFAULTS[name]["max_response_tokens"] == task.RESPONSE_TOKENS
    assert task.VOCABULARY[EOS] == "<eos>" and len(set(task.VOCABULARY)) == len(task.VOCABULARY)
    assert all(word and not set(word) & set(" \n") for word in task.VOCABULARY)
    assert all(benchmark.startswith(f"{name}-") for benchmark in task.HELD_OUT)
    assert task.SELECTION_BENCHMARK == next(iter(task.HELD_OUT)) and task.EXPLORATION_BENCHMARK in task.HELD_OUT


def test_warm_ups_of_all_policies_have_names_of_their_own():
    names = [WarmUp(policy, 0, **task.WARM_UPS[policy]).name for task in TASKS.values() for policy in SHAPES]
    assert len(set(names)) == len(names)


def test_prompts_and_demonstrations_have_the_tasks_shapes_and_come_from_the_generator(name):
    task = TASKS[name]
    first, again, other = (task.training_prompts(64, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.shape == (64, task.PROMPT_TOKENS) and torch.equal(first, again) and not torch.equal(first, other)
    demos = task.demonstrations(64, torch.Generator().manual_seed(0))
    assert demos.prompts.shape == first.shape and demos.responses.shape == (64, task.RESPONSE_TOKENS)
    assert task.reward(demos.prompts, demos.responses).mean() > 0.8
    assert {name: len(prompts) for name, prompts in task.benchmark_prompts().items()} == {
        name: benchmark.size for name, benchmark in task.HELD_OUT.items()
    }


def test_a_policy_samples_its_tasks_tokens(name):
    task, policy = TASKS[name], Policy("small", 0, name)
    rollouts = sample(policy, task.training_prompts(4, torch.Generator().manual_seed(0)), 2, torch.Generator().manual_seed(1))
    assert rollouts.tokens.shape == (8, task.RESPONSE_TOKENS) and rollouts.tokens.max() < len(task.VOCABULARY)
    assert to_text(task, rollouts.prompts[0]).endswith(" :")


def test_a_spec_names_its_task_and_the_walks_runs_keep_their_ids(name):
    spec = make_spec(method="grpo", task=name)
    assert spec.max_response_tokens == TASKS[name].RESPONSE_TOKENS
    assert {field: getattr(spec, field) for field in TASK_DEFAULTS[name]} == TASK_DEFAULTS[name]
    assert make_spec(method="grpo", task=name, learning_rate=0.5).learning_rate == 0.5
    assert (spec.run_id == make_spec(method="grpo").run_id) == (name == "walk")


def test_verl_takes_no_task_from_the_spec():
    with pytest.raises(ValueError, match=r"task='countdown': a field of the lab; on verl the data say which"):
        make_spec(method="grpo", policy="Qwen/Qwen3-4B", task="countdown")
    with pytest.raises(ValueError, match=r"unknown task 'count': did you mean 'countdown'"):
        make_spec(method="grpo", task="count")
