"""Which checkpoints stay, and which one a run goes on from, without verl."""

import pytest
from tiny_launch import PARTS, folder_of, run, write_step

from asymlib.runs.writer import RunWriter
from asymlib.verl import launch


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_running_run_keeps_the_best_and_the_last_checkpoint_and_a_finished_one_the_best_s_weights(verl, tmp_path):
    there = []
    folder = run(tmp_path, lambda metrics: there.append(files(folder_of(tmp_path) / "checkpoints"))).folder
    assert there[-2] == sorted(f"global_step_{step}/actor/{part}" for step in (4, 6) for part in PARTS)
    assert files(folder / "checkpoints") == ["global_step_4/actor/huggingface/model.safetensors"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["global_step_4"]


@pytest.mark.parametrize("moment", ["finish", "keep_weights"])
def test_a_kill_around_the_end_loses_no_training(verl, tmp_path, monkeypatch, moment):
    """Before the record is written everything is there to go on; after it the record is done."""

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*((RunWriter, "finish") if moment == "finish" else (launch, "keep_weights")), killed)
        run(tmp_path)
    assert {"global_step_4", "global_step_6"} == {path.name for path in (folder_of(tmp_path) / "checkpoints").iterdir()}
    record = run(tmp_path)
    assert record.is_done and len(verl.overrides) == 1  # trained once


def test_a_checkpoint_of_other_gpus_is_refused_in_one_sentence(verl, tmp_path, monkeypatch):
    whole = verl.steps
    verl.steps, verl.status = lambda folder, first: [write_step(folder, step) for step in (1, 2, 3)], 1
    with pytest.raises(RuntimeError, match="after step 3 of 6"):
        run(tmp_path)
    monkeypatch.setenv("ASYMLIB_GPUS_PER_NODE", "8")
    with pytest.raises(ValueError, match=r"global_step_2: written by 4 GPUs, and there are 8 now: take 4 to go on, or delete"):
        run(tmp_path)
    monkeypatch.setenv("ASYMLIB_GPUS_PER_NODE", "2")
    monkeypatch.setenv("ASYMLIB_NODES", "2")  # 4 as well
    verl.steps, verl.status = whole, 0
    assert run(tmp_path).is_done and verl.overrides[-1]["trainer.resume_from_path"].endswith("global_step_2")


def test_a_checkpoint_that_a_power_cut_emptied_is_not_continued(verl, tmp_path):
    whole = verl.steps
    verl.steps, verl.status = lambda folder, first: [write_step(folder, step) for step in (1, 2)], 1
    with pytest.raises(RuntimeError, match="after step 2 of 6"):
        run(tmp_path)
    (folder_of(tmp_path) / "checkpoints" / "global_step_2" / "actor" / PARTS[0]).write_bytes(b"")
    verl.steps, verl.status = whole, 0
    assert run(tmp_path).is_done and verl.overrides[-1]["trainer.resume_from_path"] == "null"
