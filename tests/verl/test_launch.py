"""The launch without verl: a stand-in process writes what verl's trainer writes. test_cpu_end_to_end.py runs verl itself."""

import json

import pytest
from tiny_launch import SPEC, entry, run, write_checkpoint, write_step

from asymlib import make_spec
from asymlib.evaluation import evaluate
from asymlib.runs.lines import append_sealed
from asymlib.runs.records import RunRecord, run_folder
from asymlib.runs.writer import RunWriter
from asymlib.verl import launch


def test_the_record_is_made_of_the_trainers_lines(verl, tmp_path):
    heard = []
    record = run(tmp_path, heard.append)
    assert record.is_done and record.collapse is None
    assert [m["step"] for m in heard] == record.metrics.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert record.covariance.to_dict("list") == {
        "step": [1, 2, 3, 4, 5, 6], "accuracy": [0.5] * 6, "covariance": [s / 100 for s in range(1, 7)],
    }  # fmt: skip
    assert record.provenance["method"]["name"] == "asymgrpo"
    ((checkpoint, benchmarks, settings),) = verl.evaluated
    assert checkpoint.name == "global_step_4" and benchmarks[0] == "math-500"  # the earliest of the best
    assert (settings["response_tokens"], settings["dtype"]) == (4096, "bfloat16")
    assert record.provenance["evaluation"] == {"weights": "verl's hf_model", "dtype": "bfloat16"}
    assert record.evaluation.step.tolist() == [4]
    assert run(tmp_path).is_done and len(verl.overrides) == 1  # done is done


def test_overrides_add_the_record_and_the_attempt(verl, tmp_path):
    folder = run(tmp_path).folder
    (given,) = verl.overrides
    assert given["trainer.asymlib.steps_file"] == str(folder / "steps.jsonl") and given["trainer.resume_mode"] == "disable"
    assert given["ray_kwargs.ray_init.dashboard_host"].strip("'") == "127.0.0.1"
    assert given["data.train_files"] == str(tmp_path / "data" / "train.parquet")


def test_a_cluster_gets_no_options_of_a_ray_of_our_own(verl, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    run(tmp_path)
    assert not any("ray_init" in key and "runtime_env" not in key for key in verl.overrides[0])  # a job's environment it takes


@pytest.mark.parametrize("cut", ["no line for the checkpoint", "half a line", "no checkpoint for the lines"])
def test_a_cut_off_run_goes_on_from_the_last_step_with_line_and_checkpoint(verl, tmp_path, cut):
    folder = run_folder(SPEC, tmp_path / "results").resolve()
    whole, verl.status = verl.steps, 1

    def die(folder, first):
        for step in (1, 2, 3, 4, 5):
            write_step(folder, step)
        if cut == "no line for the checkpoint":  # verl died while it validated step 6
            write_checkpoint(folder, 6)
        elif cut == "half a line":
            with (folder / "steps.jsonl").open("a") as file:
                file.write(json.dumps(entry(6))[:20])

    verl.steps = die
    with pytest.raises(RuntimeError, match=r"status 1 after step 5 of 6.*\n.*\nthe last words"):
        run(tmp_path)
    assert "after step 5 of 6" in (folder / "failed.json").read_text()

    verl.steps, verl.status = whole, 0
    record = run(tmp_path)
    assert record.is_done and record.metrics.step.tolist() == record.covariance.step.tolist() == [1, 2, 3, 4, 5, 6]
    again = verl.overrides[-1]
    assert again["trainer.resume_mode"] == "resume_path"
    assert again["trainer.resume_from_path"] == str(folder / "checkpoints" / "global_step_4")
    assert len(record.provenance["earlier_attempts"]) == 1


def lines(change):
    def damage(folder):
        path = folder / "steps.jsonl"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return damage


def another_run(folder):
    """As if its lines had been copied; the checkpoints beside them are this run's."""
    other = folder.with_name("0123456789ab")
    other.mkdir()
    for step in (1, 2, 3, 4, 5):
        append_sealed(other / "steps.jsonl", entry(step))
    (other / "steps.jsonl").replace(folder / "steps.jsonl")
    other.rmdir()


# What happened to the lines of steps 1 to 5 or to the checkpoints of steps 2 and 4, and the step that the run goes on from.
DAMAGES = {
    "no lines": (lambda folder: (folder / "steps.jsonl").unlink(), 0),
    "empty": (lines(lambda found: []), 0),
    "a line less": (lines(lambda found: found[:2] + found[3:]), 2),
    "the last three lines less": (lines(lambda found: found[:2]), 2),
    "a line twice": (lines(lambda found: found[:1] + found), 0),
    "backwards": (lines(lambda found: found[::-1]), 0),
    "renamed keys": (lines(lambda found: [line.replace(b"reward", b"rewards") for line in found]), 0),
    "NaN": (lines(lambda found: [line.replace(b"0.3", b"NaN") for line in found]), 2),
    "a flipped digit": (lines(lambda found: [line.replace(b'"reward": 0.5', b'"reward": 0.6') for line in found]), 4),
    "half a line": (lines(lambda found: [*found[:2], found[2][:9], *found[3:]]), 2),
    "half a line with its end": (lines(lambda found: [*found[:2], found[2][:9] + b"\n", *found[3:]]), 2),
    "not UTF-8": (lines(lambda found: [*found[:4], b"\xff\xfe\n"]), 4),
    "deeply nested": (lines(lambda found: [*found[:4], b"[" * 100_000 + b"\n"]), 4),
    "another run's": (another_run, 0),
    "zeros": (lines(lambda found: [*found[:2], bytes(500)]), 2),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_progress_goes_on_from_the_last_sound_checkpoint_and_says_so(verl, tmp_path, name):
    damage, resumed = DAMAGES[name]
    folder, whole = run_folder(SPEC, tmp_path / "results").resolve(), verl.steps
    verl.steps, verl.status = lambda folder, first: [write_step(folder, step) for step in (1, 2, 3, 4, 5)], 1
    with pytest.raises(RuntimeError, match="after step 5 of 6"):
        run(tmp_path)
    if resumed == 2:  # where step 4 was not better, both are there
        write_checkpoint(folder, 2)
    damage(folder)
    verl.steps, verl.status = whole, 0
    with pytest.warns(
        UserWarning, match=f"steps.jsonl .*: the run {f'goes on from step {resumed}' if resumed else 'starts anew'}"
    ):
        record = run(tmp_path)
    assert record.is_done and record.metrics.reward.tolist() == [step / 10 for step in range(1, 7)]
    assert verl.overrides[-1]["trainer.resume_from_path"].endswith(f"global_step_{resumed}" if resumed else "null")
    assert "steps.jsonl" in record.provenance["damaged_progress"]


def test_lines_in_a_folder_s_place_are_an_error_that_names_it(verl, tmp_path):
    place = run_folder(SPEC, tmp_path / "results").resolve() / "steps.jsonl"
    place.mkdir(parents=True)
    with pytest.raises(OSError) as error:
        run(tmp_path)
    assert error.value.filename == str(place)


def test_a_line_that_changes_while_the_run_goes_on_fails_it(verl, tmp_path):
    def steps(folder, first):
        write_step(folder, 1)
        lines(lambda found: [found[0].replace(b"0.1", b"0.2")])(folder)

    verl.steps = steps
    with pytest.raises(RuntimeError, match=r"steps.jsonl: the line after step 0 is damaged; run it again"):
        run(tmp_path)


def test_a_run_cut_off_while_it_was_evaluated_trains_no_more(verl, tmp_path, monkeypatch):
    good = evaluate.evaluate
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path)
    monkeypatch.setattr(evaluate, "evaluate", good)
    assert run(tmp_path).is_done and len(verl.overrides) == 1


def test_settings_by_hand_reach_verl_and_the_record(verl, tmp_path, monkeypatch):
    monkeypatch.setenv("ASYMLIB_OVERRIDES", '["actor_rollout_ref.rollout.gpu_memory_utilization=0.3"]')
    record = run(tmp_path)
    assert verl.overrides[0]["actor_rollout_ref.rollout.gpu_memory_utilization"] == "0.3"
    assert record.provenance["verl"]["overrides"] == ["actor_rollout_ref.rollout.gpu_memory_utilization=0.3"]


def test_a_gap_between_rollout_and_policy_is_warned_of_once_and_recorded(verl, tmp_path):
    def steps(folder, first):
        for step in range(1, 7):
            write_step(folder, step, rollout_log_prob_gap_mean=0.01 if step < 3 else 0.2)

    verl.steps = steps
    with pytest.warns(UserWarning, match="step 3: .* differ by 0.2 nats a token in the mean, more than 0.05") as warned:
        record = run(tmp_path)
    assert len([w for w in warned if "nats a token" in str(w.message)]) == 1
    assert record.provenance["rollout_log_prob_gap"].startswith("step 3")


def test_ending_early_with_status_0_is_a_failure(verl, tmp_path):
    verl.steps = lambda folder, first: [write_step(folder, step) for step in (1, 2, 3)]
    with pytest.raises(RuntimeError, match="status 0 after step 3 of 6"):
        run(tmp_path)
    assert not RunRecord(run_folder(SPEC, tmp_path / "results")).is_done


def test_a_collapse_is_a_result(verl, tmp_path):
    def collapse(folder, first):
        write_step(folder, 1)
        append_sealed(folder / "steps.jsonl", {"collapse": "grad_norm is nan at step 2"})

    verl.steps, verl.status = collapse, 1
    record = run(tmp_path)
    assert record.is_done and record.collapse == "grad_norm is nan at step 2" and record.evaluation.empty


def test_a_validation_without_the_selecting_set_is_refused(verl, tmp_path):
    def other(folder, first):
        append_sealed(folder / "steps.jsonl", entry(1, val_acc=0.5))

    verl.steps = other
    with pytest.raises(RuntimeError, match="did not validate on math-500"):
        run(tmp_path)


def test_profile_cpu_needs_an_exported_policy(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    spec = make_spec(method="grpo", policy=str(tmp_path / "policy"), engine="verl", profile="cpu", steps=1)
    folder = run_folder(spec, tmp_path)
    with pytest.raises(ValueError, match="profile 'cpu' trains a folder that `asymlib export` wrote"):
        launch.train(spec, RunWriter(spec, folder), tmp_path)
