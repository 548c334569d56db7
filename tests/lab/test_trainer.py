import io
import json

import pandas as pd
import pytest
import tiny_lab
import torch
from tiny_lab import BROKEN, SILENT, tiny_spec

from asymlib import METHODS, load_runs, run_experiment
from asymlib.lab import warmup
from asymlib.lab.optimizer import AdamW
from asymlib.lab.policy import Policy
from asymlib.lab.tasks import TASKS
from asymlib.lab.tasks import walk as task
from asymlib.lab.trainer import new_state
from asymlib.runs.records import run_folder
from asymlib.runs.writer import RunWriter
from asymlib.support.files import digest

pytestmark = pytest.mark.usefixtures("small_lab")
TIMINGS = ["seconds_rollout", "seconds_update"]
METRICS = {
    "step", "reward", "entropy", "all_solved", "none_solved", "log_prob_increment_pos", "response_length", "clip_fraction",
    "grad_norm", "tokens", *TIMINGS,
}  # fmt: skip
VALIDATION = {"val_acc", *(f"val_acc/{name}" for name in task.HELD_OUT)}


@pytest.fixture
def results(warm_results, tmp_path):
    """A fresh results folder that shares the session's warm-up checkpoints."""
    (tmp_path / "warmup").symlink_to(warm_results / "warmup")
    return tmp_path


@pytest.fixture(scope="module")
def method_results(warm_results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    (folder / "warmup").symlink_to(warm_results / "warmup")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name, method_results):
    record = run_experiment(tiny_spec(method=name, lr_warmup_steps=0), method_results)
    assert record.is_done and record.collapse is None
    metrics = record.metrics
    assert set(metrics) == METRICS | VALIDATION
    assert metrics["step"].tolist() == [1, 2]
    assert metrics["val_acc"].isna().tolist() == [True, False]
    assert metrics["reward"].between(0.2, 0.8).all() and metrics["grad_norm"].max() > 0
    assert (metrics["entropy"] - torch.tensor(41.0).log().item()).abs().max() < 0.2  # the random policy is nearly uniform
    validated = metrics.iloc[-1]
    assert validated["val_acc"] == pytest.approx(validated[list(VALIDATION - {"val_acc"})].mean(), abs=1e-5)
    evaluation = record.evaluation
    assert evaluation["checkpoint"].tolist() == ["last"] + ["best"] * 5
    assert evaluation["samples"].tolist() == [16, *(b.samples for b in task.HELD_OUT.values())]
    assert all(len(row.correct) == 5 and max(row.correct) <= row.samples for row in evaluation.itertuples())
    covariance = record.covariance
    assert covariance["step"].tolist() == [1] * 4 + [2] * 4 and set(covariance["accuracy"] * 8 % 1) == {0}
    contrast = ~covariance["accuracy"].isin([0, 1])
    assert not covariance.loc[~contrast, "covariance"].abs().gt(1e-12).any()


def test_countdown_trains_as_the_walk_does(results):
    record = run_experiment(tiny_spec(task="countdown", validation_every=1), results)
    sets = TASKS["countdown"].HELD_OUT
    assert record.is_done and record.spec.task == "countdown" and record.metrics["step"].tolist() == [1, 2]
    assert {f"val_acc/{name}" for name in sets} <= set(record.metrics)
    assert record.evaluation["benchmark"].tolist() == ["countdown-far", *sets]
    assert record.metrics["response_length"].between(2, 16).all()


def test_the_last_policy_is_sampled_at_the_temperatures_asked_for(results):
    record, usual = (run_experiment(tiny_spec(**more), results) for more in ({"exploration_temperatures": [0.5, 1.0]}, {}))
    last = record.evaluation.query("checkpoint == 'last'")
    assert last.temperature.tolist() == [0.5, 1.0] and last.correct.iloc[0] != last.correct.iloc[1]
    pd.testing.assert_frame_equal(record.evaluation.drop(last.index[0]).reset_index(drop=True), usual.evaluation)
    pd.testing.assert_frame_equal(record.metrics.drop(columns=TIMINGS), usual.metrics.drop(columns=TIMINGS))


def test_methods_train_differently(method_results):
    metrics = {m: run_experiment(tiny_spec(method=m, lr_warmup_steps=0), method_results).metrics for m in METHODS}
    assert len({m["reward"][0] for m in metrics.values()}) == 1  # the same first rollouts for the same seed
    assert len({m["grad_norm"][0] for m in metrics.values()}) >= len(METHODS) - 2


def test_the_same_spec_twice_gives_the_same_record(results, warm_results, tmp_path):
    spec = tiny_spec(method="asymgrpo", steps=4, validation_every=2)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "warmup").symlink_to(warm_results / "warmup")
    first, again = run_experiment(spec, results), run_experiment(spec, tmp_path / "again")
    assert first.folder != again.folder
    pd.testing.assert_frame_equal(first.metrics.drop(columns=TIMINGS), again.metrics.drop(columns=TIMINGS))
    pd.testing.assert_frame_equal(first.evaluation, again.evaluation)
    pd.testing.assert_frame_equal(first.covariance, again.covariance)
    other = run_experiment(tiny_spec(method="asymgrpo", steps=4, validation_every=2, seed=1), results)
    assert not first.metrics["entropy"].equals(other.metrics["entropy"])


def test_training_raises_the_reward_and_the_right_rollouts_log_prob(results):
    spec = tiny_spec(method="grpo", steps=15, prompts_per_step=8, learning_rate=3e-3, lr_warmup_steps=0, validation_every=15)
    metrics = run_experiment(spec, results).metrics
    assert metrics["reward"][:2].mean() < 0.65 and metrics["reward"][-2:].mean() > 0.85
    assert (metrics["log_prob_increment_pos"][:3] > 0).all()


@pytest.mark.parametrize(
    ("checkpoint", "reason", "benchmarks"),
    [(BROKEN, "a log-prob is not finite at step 1", 0), (SILENT, "100% of the responses are empty at step 1", 1)],
)
def test_a_policy_that_breaks_down_is_recorded_as_collapsed(results, checkpoint, reason, benchmarks):
    record = run_experiment(tiny_spec(warmup_seed=checkpoint), results)
    assert record.is_done and record.collapse == reason
    assert record.metrics.empty and len(record.evaluation) == benchmarks
    (run,) = load_runs(results / "quick").itertuples()
    assert run.collapsed


def test_a_gradient_that_is_not_finite_is_a_collapse(results, monkeypatch):
    monkeypatch.setattr(AdamW, "clip_gradients", lambda _: torch.tensor(torch.nan))
    record = run_experiment(tiny_spec(validation_every=1), results)
    assert record.collapse == "the gradient's norm is nan at step 1"


def test_the_warm_up_is_made_once_and_says_how(tmp_path, monkeypatch):
    monkeypatch.setattr(warmup.WarmUp, "__init__", _with(warmup.WarmUp.__init__, steps=3, batch=16))
    made = []
    train = warmup.train
    monkeypatch.setattr(warmup, "train", lambda recipe, task: made.append(recipe) or train(recipe, task))
    first, again = (warmup.load_warm_policy("small", 5, tmp_path) for _ in range(2))
    assert len(made) == 1
    assert torch.equal(first.embedding.weight, again.embedding.weight)
    assert not torch.equal(first.embedding.weight, Policy("small", 5).embedding.weight)
    (facts,) = (json.loads(p.read_text()) for p in (tmp_path / "warmup").glob("*.json"))
    assert facts["steps"] == 3 and facts["seed"] == 5 and facts["provenance"]["commit"]
    [weights] = (tmp_path / "warmup").glob("*.safetensors")
    assert facts["sha256"] == digest(weights)
    assert sum(facts["groups_by_right_rollouts"]) == 512
    names = {warmup.WarmUp("small", s, steps=n).name for s in (0, 1) for n in (3, 4)}
    assert len(names) == 4  # the name is the hash of all that makes it


def _with(init, **defaults):
    return lambda self, *arguments, **given: init(self, *arguments, **(defaults | given))


def test_warming_up_lowers_the_loss():
    _, early = warmup.train(warmup.WarmUp("small", steps=2, batch=32, lr_warmup_steps=5))
    policy, late = warmup.train(warmup.WarmUp("small", steps=40, batch=32, lr_warmup_steps=5))
    assert late < early - 0.5 and torch.isfinite(policy.embedding.weight).all()


def test_tiny_lab_is_what_it_says():
    responses = torch.tensor([[3, 0], [2, 0]])
    assert tiny_lab.easy_reward(None, responses).tolist() == [1, 0]
    assert {len(p) for p in task.benchmark_prompts().values()} == {5}


def test_a_snapshot_of_another_version_starts_the_run_anew(results):
    spec = tiny_spec()
    writer = RunWriter(spec, run_folder(spec, results))
    writer.note(warmup=tiny_lab.warm_up_facts(results))
    writer.log({"step": 1})
    content = io.BytesIO()
    torch.save({"moments": {}, "step": 1}, content)
    writer.keep(content.getvalue())
    with pytest.warns(UserWarning, match="of another version: the run starts anew"):
        record = run_experiment(spec, results)
    assert record.is_done and record.metrics["step"].tolist() == [1, 2]
    assert "of another version" in record.provenance["started_anew"]


@pytest.mark.parametrize(
    "change",
    [{"past": 3}, {"optimizer": None}, {"step": 2}, {"step": 0}, {"policy": []}, []],
    ids=["no past", "no moments", "a later step", "an earlier step", "no weights", "no state"],
)
def test_a_state_that_does_not_fit_its_lines_or_this_code_starts_the_run_anew(results, change):
    spec = tiny_spec()
    writer, state = RunWriter(spec, run_folder(spec, results)), new_state(spec, results)
    writer.note(warmup=tiny_lab.warm_up_facts(results))
    writer.log({"step": 1})
    state.step = 1
    saved = torch.load(io.BytesIO(state.to_bytes()), weights_only=True)
    torch.save(saved | change if isinstance(change, dict) else change, content := io.BytesIO())
    writer.keep(content.getvalue())
    with pytest.warns(UserWarning, match="of another version: the run starts anew"):
        record = run_experiment(spec, results)
    assert record.is_done and record.metrics["step"].tolist() == [1, 2]


def test_a_warm_up_that_is_not_the_one_that_its_json_names_is_refused(tmp_path):
    tiny_lab.write_checkpoints(tmp_path)
    weights = tmp_path / "warmup" / f"{warmup.WarmUp('small').name}.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    for damaged in (bytes(content), content[:100], b""):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"not the weights that small-0-.*json names; restore both, or remove both"):
            run_experiment(tiny_spec(), tmp_path)
    other = weights.with_name(f"{warmup.WarmUp('small', tiny_lab.SILENT).name}.safetensors")  # another seed's, both files
    for suffix in (".safetensors", ".json"):
        weights.with_suffix(suffix).write_bytes(other.with_suffix(suffix).read_bytes())
    with pytest.raises(ValueError, match=r"json is that of another warm-up; restore both"):
        run_experiment(tiny_spec(), tmp_path)
