from types import SimpleNamespace

from asymlib.cli.progress import Pace, clock


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
