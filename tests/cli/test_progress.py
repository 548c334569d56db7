from types import SimpleNamespace

from asymlib import make_spec
from asymlib.cli.batch import _BatchBar
from asymlib.cli.progress import Pace, clock
from asymlib.runs.records import run_folder


def test_the_time_left_is_the_mean_pace_without_what_was_there_before(monkeypatch):
    monkeypatch.setattr("asymlib.cli.progress.time", SimpleNamespace(monotonic=iter([0, 10, 50, 130, 160]).__next__))
    pace = Pace(total=100)
    pace.reached(0)
    pace.reached(60, was_there=True)  # at 10 s: cost nothing
    assert str(pace) == ""
    pace.reached(70)  # at 50 s: 4 s each
    pace.reached(90)  # at 130 s: (130 - 10) / 30 = 4 s each, 10 left
    assert str(pace) == "0:00:10 left"  # at 160 s


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3599.7, 90_061)] == ["0:00:00", "0:01:00", "0:01:01", "1:00:00", "1 day, 1:01:01"]


def test_a_batch_counts_the_steps_of_runs_that_go_on(tmp_path, capsys):
    first, second = (make_spec(method="grpo", steps=10, seed=seed) for seed in (0, 1))
    with _BatchBar("m.yaml", [first, second], tmp_path) as bar:
        bar.count()
        assert bar.tasks[0].completed == 0
        lines = run_folder(first, tmp_path) / "metrics.jsonl"
        lines.parent.mkdir(parents=True)
        lines.write_text('{"step": 1}\n{"step": 2}\n{"st')
        bar.count()
        assert bar.tasks[0].completed == 2 and bar.tasks[0].fields["values"] == "0/2 runs"
        bar.report(first, "failed", "[/pytorch/pair.cc:589] no such luck")  # a run that ended, however far it came
        assert bar.tasks[0].completed == 10 and bar.tasks[0].fields["values"] == "1/2 runs"
    assert "[/pytorch/pair.cc:589] no such luck" in capsys.readouterr().out
