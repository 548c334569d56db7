import pytest

from asymlib import make_spec, run_experiment
from asymlib.execution import running
from asymlib.execution.running import state_of
from asymlib.runs.records import run_folder

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
    monkeypatch.setattr(running, "_engine", lambda name: train)
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
