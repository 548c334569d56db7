"""`asymlib tensorboard`: what TensorBoard reads of a record."""

from command_line import asymlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_a_record_s_metrics_are_event_files_and_are_not_written_twice(finished_run, tmp_path):
    first, second = finished_run(), finished_run(seed=3)
    done = asymlib("tensorboard", "grpo", "--to", "events", "--results", tmp_path, folder=tmp_path)
    assert done.returncode == 0 and "2 run(s) written; next: tensorboard --logdir events" in done.stdout, done.stderr
    names = {f"grpo seed {record.spec.seed} {record.folder.name}" for record in (first, second)}
    assert {path.name for path in (tmp_path / "events").iterdir()} == names
    for name in names:
        events = EventAccumulator(str(tmp_path / "events" / name)).Reload()
        assert events.Tags()["scalars"] == ["reward"]  # the increment is empty in this record
        assert [(event.step, round(event.value, 6)) for event in events.Scalars("reward")] == [(1, 0.333333), (2, 0.666667)]

    third = finished_run(seed=4)
    again = asymlib("tensorboard", "grpo", third.folder.name, "--to", "events", "--results", tmp_path, folder=tmp_path)
    assert again.returncode == 2 and len(again.stderr.splitlines()) == 1
    assert "--to='events': " in again.stderr and "is in it already; name another folder" in again.stderr
    assert {path.name for path in (tmp_path / "events").iterdir()} == names


def test_a_run_that_is_not_there_is_refused(tmp_path):
    done = asymlib("tensorboard", "gpro", "--results", tmp_path, folder=tmp_path)
    assert done.returncode == 2 and "no run or method 'gpro'" in done.stderr
    assert not (tmp_path / "tensorboard").exists()
