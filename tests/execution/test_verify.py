"""A replay of a record: equal on the machine that made it, and told from rounding, other samples and other weights."""

import pytest
import torch
from command_line import asymlib
from safetensors.torch import save_file
from tiny_lab import tiny_spec

from asymlib import run_experiment
from asymlib.execution.verify import verify
from asymlib.lab import trainer
from asymlib.lab.policy import Policy
from asymlib.lab.warmup import WarmUp
from asymlib.support.files import digest, read_json, write_json

pytestmark = pytest.mark.usefixtures("small_lab")


@pytest.fixture
def results(cheap_results):
    return cheap_results


@pytest.fixture
def record(results):
    return run_experiment(tiny_spec(steps=3, validation_every=2), results)


def start_from(monkeypatch, change):
    """Replays start from weights that `change` gets to change."""
    new_state = trainer.new_state

    def changed(*arguments):
        state = new_state(*arguments)
        with torch.no_grad():
            for weight in state.policy.parameters():
                change(weight)
        return state

    monkeypatch.setattr(trainer, "new_state", changed)


def test_the_same_machine_reproduces_a_record(record, results):
    found = verify(record.folder.name[:6], results)
    assert found.is_reproduced and found.steps == 3 and found.first_other_sample is None
    assert found.differences["replay"].eq(0).all() and {"reward", "entropy", "val_acc"} <= set(found.differences["metric"])
    assert found.checkpoint == "the recorded one" and found.machine == "the same" and found.seeds == 0
    assert found.verdict == "Reproduced: all metrics of the first 3 steps are equal, to the six digits of a record."
    assert verify(str(record.folder), results, steps=2).steps == 2


def test_rounding_is_told_from_another_result_and_set_beside_the_noise_of_seeds(record, results, monkeypatch):
    run_experiment(tiny_spec(steps=3, validation_every=2, seed=1), results)
    start_from(monkeypatch, lambda weight: weight.mul_(1 + 1e-5))
    found = verify(record.folder.name, results)
    assert found.is_reproduced and found.seeds == 1 and found.verdict.startswith("Reproduced but for rounding: ")
    assert 0 < found.differences["replay"].max() < 1e-3 < found.differences["seeds"].max()


def test_other_samples_are_named_by_their_first_step(record, results, monkeypatch):
    start_from(monkeypatch, lambda weight: weight.mul_(30))
    found = verify(record.folder.name, results)
    assert not found.is_reproduced and found.first_other_sample == 1
    assert found.verdict.startswith("Not reproduced: the first step samples other tokens already (")


def test_other_weights_are_not_comparable(record, results):
    weights = results / "warmup" / f"{WarmUp('small', 0).name}.safetensors"
    save_file(Policy("small", 7).state_dict(), weights)
    write_json(weights.with_suffix(".json"), read_json(weights.with_suffix(".json")) | {"sha256": digest(weights)})
    found = verify(record.folder.name, results)
    assert not found.is_reproduced and found.checkpoint == "another one" and found.verdict.startswith("Not comparable: ")


def test_a_name_of_many_runs_and_an_unknown_one_are_refused(record, results):
    run_experiment(tiny_spec(steps=3, validation_every=2, seed=1), results)
    with pytest.raises(ValueError, match="'grpo' names 2 runs"):
        verify("grpo", results)
    with pytest.raises(ValueError, match="no run or method 'nothing'"):
        verify("nothing", results)


def test_the_command_prints_the_verdict_and_its_exit_status_is_it(cheap_results, tmp_path):
    record = run_experiment(tiny_spec(), cheap_results)  # of the lab in small, which the command's process does not know
    done = asymlib("verify", record.folder.name, "--results", cheap_results, folder=tmp_path)
    assert done.returncode == 1 and "Not reproduced" in done.stdout.splitlines()[-1] and not done.stderr
    done = asymlib("verify", "nothing", "--results", cheap_results, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
