import pytest

from asymlib import make_spec, run_experiment, running
from asymlib.records import run_folder
from asymlib.running import state_of

SPEC = make_spec(method="grpo", steps=1)


@pytest.fixture
def engine(monkeypatch):
    """Replaces the lab by a function; engine.calls counts how often it trained."""

    def train(spec, writer, results):
        train.calls += 1
        train.seen.append(state_of(spec, results))
        writer.log({"step": 1, "reward": 0.5})
        if train.error:
            raise train.error
        import pandas as pd

        writer.finish([], pd.DataFrame(columns=["step", "accuracy", "covariance"]), train.collapse)

    train.calls, train.seen, train.error, train.collapse = 0, [], None, None
    monkeypatch.setitem(running._ENGINES, "lab", train)
    return train


def test_a_done_run_is_not_done_again(engine, tmp_path):
    first = run_experiment(SPEC, tmp_path)
    again = run_experiment(SPEC, tmp_path)
    assert engine.calls == 1 and first.folder == again.folder == run_folder(SPEC, tmp_path)
    assert engine.seen == ["running"] and state_of(SPEC, tmp_path) == "done"


def test_a_changed_record_is_made_anew(engine, tmp_path):
    record = run_experiment(SPEC, tmp_path)
    (record.folder / "evaluation.json").write_text("[1]")
    assert run_experiment(SPEC, tmp_path).is_done and engine.calls == 2


def test_a_failure_is_kept_raised_and_forgotten_by_the_next_success(engine, tmp_path):
    engine.error = FloatingPointError("no such luck")
    with pytest.raises(FloatingPointError, match="no such luck"):
        run_experiment(SPEC, tmp_path)
    failed = run_folder(SPEC, tmp_path) / "failed.json"
    assert "FloatingPointError: no such luck" in failed.read_text() and state_of(SPEC, tmp_path) == "failed"
    engine.error = None
    run_experiment(SPEC, tmp_path)
    assert not failed.exists() and state_of(SPEC, tmp_path) == "done"


def test_an_error_in_a_stack_is_left_with_every_run_that_it_stopped(engine, tmp_path, monkeypatch):
    from asymlib.lab import stack

    specs = [make_spec(method="grpo", steps=1, seed=seed) for seed in range(4)]
    run_experiment(specs[0], tmp_path)

    def train(taken, writers, results, device):
        assert taken == specs[1:3] and device == "cpu"  # one is done, one runs elsewhere
        engine(taken[0], writers[0], results)
        raise MemoryError("out of it")

    monkeypatch.setattr(stack, "train_stacked", train)
    run_folder(specs[3], tmp_path).mkdir()
    with running._lock(run_folder(specs[3], tmp_path)), pytest.raises(MemoryError):
        running.run_stacked(specs, "cpu", tmp_path)
    assert [state_of(spec, tmp_path) for spec in specs] == ["done", "done", "failed", "left"]
    with pytest.raises(ValueError, match="policy='Qwen/Qwen3-4B': only runs of the lab"):
        running.run_stacked([make_spec(method="grpo", policy="Qwen/Qwen3-4B")], "cpu", tmp_path)


def test_states_of_runs_that_did_not_end(engine, tmp_path):
    assert state_of(SPEC, tmp_path) == "left"
    folder = run_folder(SPEC, tmp_path)
    assert not folder.exists()  # asking makes nothing
    folder.mkdir(parents=True)
    assert state_of(SPEC, tmp_path) == "left"
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    assert state_of(SPEC, tmp_path) == "cut off"
    engine.collapse = "NaN"
    run_experiment(SPEC, tmp_path)
    assert state_of(SPEC, tmp_path) == "collapsed"


def test_on_step_hears_the_metrics_as_they_are_stored(engine, tmp_path):
    heard = []
    record = run_experiment(SPEC, tmp_path, on_step=heard.append)
    assert heard == record.metrics.to_dict("records") == [{"step": 1, "reward": 0.5}]
