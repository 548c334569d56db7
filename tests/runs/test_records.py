import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import tiny_lab
import torch

import asymlib
from asymlib import METHODS, RunRecord, load_runs, make_spec, methods, run_experiment
from asymlib.runs.records import RECORD_FILES, gather, results_root, run_folder
from asymlib.runs.writer import RunWriter
from asymlib.support.files import digest, write_atomically


def test_a_finished_run_loads_as_it_was_written(finished_run, tmp_path):
    record = finished_run(method="asymgrpo", beta_pos=0.75, profile="lab", seed=3)
    runs = load_runs(tmp_path / "lab")
    assert len(runs) == 1
    run = runs.iloc[0]
    assert (run.variant, run.seed, run.collapsed, run.run_id) == ("asymgrpo beta_pos=0.75", 3, False, record.spec.run_id)
    assert run.record.metrics["reward"].tolist() == [0.333333, 0.666667]  # six significant digits
    assert run.record.metrics["log_prob_increment_pos"].isna().all()
    assert run.record.evaluation["correct"].tolist() == [[0, 10, 3]]
    assert run.record.covariance["covariance"].tolist() == [0.125]
    assert run.record.provenance["method"]["beta_pos"] == 0.75
    assert set(gather(runs, "metrics")["variant"]) == {"asymgrpo beta_pos=0.75"}
    assert not list(record.folder.glob("*.partial"))


def test_provenance_says_what_made_the_run(finished_run):
    provenance = finished_run(seed=5).provenance
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(asymlib.__file__).parent, capture_output=True, text=True, check=True
    )
    assert provenance["commit"] == head.stdout.strip() and provenance["seed"] == 5
    assert provenance["dirty"] == (provenance["diff_sha256"] is not None)
    assert {"python", "asymlib", "numpy", "torch"} <= set(provenance["versions"])
    assert set(provenance["machine"]["flags"]) <= set(Path("/proc/cpuinfo").read_text().split())
    assert provenance["machine"]["capability"] == torch.backends.cpu.get_cpu_capability()
    assert provenance["wall_seconds"] >= 0 and provenance["cpu_seconds"] >= 0 and provenance["machine"]["cores"] >= 1
    assert "unknown" not in json.dumps(provenance).lower()


def test_a_collapsed_run_is_a_result_and_says_why(finished_run, tmp_path):
    finished_run(collapse="NaN at step 2")
    (run,) = load_runs(tmp_path).itertuples()
    assert run.collapsed and run.record.collapse == "NaN at step 2"


def damage_done(content):
    return lambda folder: (folder / "done.json").write_text(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "done.json").unlink(), "no done.json"),
        (damage_done(""), "done.json cannot be read"),
        (damage_done('{"collapsed": null, "sha'), "done.json cannot be read"),
        (damage_done("[1]"), "done.json cannot be read"),
        (damage_done("null"), "done.json cannot be read"),
        (damage_done('{"sha256": {}}'), "done.json cannot be read"),
        *[(lambda folder, n=name: (folder / n).unlink(), f"no {name}") for name in RECORD_FILES if name != "spec.json"],
        *[(lambda folder, n=name: (folder / n).open("ab").write(b" "), f"{name} changed") for name in RECORD_FILES],
    ],
)
def test_a_damaged_folder_is_skipped_with_a_warning(finished_run, tmp_path, damage, reason):
    whole, damaged = finished_run(seed=1), finished_run(seed=2)
    damage(damaged.folder)
    with pytest.warns(UserWarning, match=rf"1 of 2 run folders skipped: {damaged.folder.name} \({reason}"):
        runs = load_runs(tmp_path)
    assert runs["run_id"].tolist() == [whole.folder.name]


def test_no_runs_make_an_empty_table_with_its_columns(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = load_runs(tmp_path)
    assert runs.empty and {"run_id", "variant", "method", "seed", "record"} <= set(runs.columns)
    assert gather(runs, "metrics").empty


def test_metrics_of_a_run_that_goes_on_are_its_whole_lines(tmp_path):
    writer = RunWriter(make_spec(method="grpo", steps=2), tmp_path)
    assert RunRecord(tmp_path).metrics.empty
    writer.log({"step": 1, "reward": 1 / 3, "log_prob_increment_pos": None})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    assert RunRecord(tmp_path).metrics.to_dict("records") == [{"step": 1, "reward": 0.333333, "log_prob_increment_pos": None}]
    (tmp_path / "metrics.jsonl").write_text('{"st')
    assert RunRecord(tmp_path).metrics.empty


def test_the_table_of_metrics_has_the_lines_values_to_the_bit(tmp_path):
    spec = make_spec(method="grpo", steps=3)
    writer = RunWriter(spec, run_folder(spec, tmp_path))
    for step, (reward, accuracy) in enumerate(((0.1, {}), (1e-300, {"val_acc": 0.7}), (-0.0, {"val_acc": None})), 1):
        writer.log({"step": step, "tokens": 2**53 + step, "reward": reward, "never": None} | accuracy)
    while_running = RunRecord(writer.folder).metrics
    writer.finish([], pd.DataFrame(columns=["step", "accuracy", "covariance"]))
    record = RunRecord(writer.folder)
    pd.testing.assert_frame_equal(record.metrics, while_running, check_exact=True)
    assert list(record.metrics) == ["step", "tokens", "reward", "never", "val_acc"] and record.metrics.tokens.dtype == "int64"
    assert str(record.metrics.reward.tolist()) == "[0.1, 1e-300, -0.0]"
    assert record.is_done and not (writer.folder / "metrics.jsonl").exists()


def test_a_run_that_collapsed_before_its_first_step_has_no_metrics(tmp_path):
    spec = make_spec(method="grpo")
    RunWriter(spec, run_folder(spec, tmp_path)).finish([], pd.DataFrame(columns=["step"]), collapse="NaN at step 1")
    assert RunRecord(run_folder(spec, tmp_path)).is_done and RunRecord(run_folder(spec, tmp_path)).metrics.empty


def test_lines_that_changed_while_the_run_went_on_make_no_record(tmp_path):
    writer = RunWriter(make_spec(method="grpo", steps=2), tmp_path)
    writer.log({"step": 1, "reward": 0.5})
    with pytest.raises(ValueError, match="step=3: the line after step 1 must be that of step 2"):
        writer.log({"step": 3, "reward": 0.5})
    writer.log({"step": 2, "reward": 0.5})
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.75}\n')
    with pytest.raises(RuntimeError, match="changed while the run went on"):
        writer.finish([], pd.DataFrame())
    assert not (tmp_path / "done.json").exists()


def test_a_record_is_a_result_only_of_the_method_that_was_trained(finished_run, monkeypatch):
    record = finished_run(method="asymgrpo", seed=1)

    def with_row(**changes):
        row = METHODS["asymgrpo"].model_copy(update=changes)
        monkeypatch.setattr(methods, "CATALOGUE", METHODS | {"asymgrpo": row})
        return RunRecord(record.folder).fault

    assert with_row(label="other words", source="a book") is None
    assert with_row(beta_pos=0.8) == "method 'asymgrpo' is another today than the one that was trained"


def test_a_setting_that_methods_got_later_does_not_make_old_records_invalid(finished_run):
    folder = finished_run().folder
    provenance, done = (json.loads((folder / name).read_text()) for name in ("provenance.json", "done.json"))
    del provenance["method"]["clip_high"]  # as if it had come after this run, with its default
    (folder / "provenance.json").write_text(json.dumps(provenance))
    done["sha256"]["provenance.json"] = digest(folder / "provenance.json")
    (folder / "done.json").write_text(json.dumps(done))
    assert RunRecord(folder).is_done


def test_every_committed_record_is_a_result_with_its_id():
    results = Path(__file__).resolve().parents[2] / "results"
    committed = [path.parent for path in results.glob("*/runs/*/done.json") if path.parts[-4] != "quick"]
    assert len(committed) >= 431
    assert not {folder: record.fault for folder in committed if not (record := RunRecord(folder)).is_done}


def test_a_run_killed_twice_equals_an_undisturbed_one(warm_results, small_lab, tmp_path):
    """SIGKILL before and after the first snapshot, each time in the middle of a line."""
    spec = tiny_lab.tiny_spec(method="asymgrpo", steps=14, validation_every=5)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for results in (killed, undisturbed):
        shutil.copytree(warm_results / "warmup", results / "warmup")
    for last_step in (3, tiny_lab.SNAPSHOT_EVERY + 3):
        command = [sys.executable, tiny_lab.__file__, spec.model_dump_json(), str(killed), str(last_step)]
        assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == -signal.SIGKILL
        cut_off = RunRecord(run_folder(spec, killed))
        assert cut_off.fault == "no done.json" and cut_off.metrics["step"].tolist() == list(range(1, last_step + 1))
    resumed, whole = run_experiment(spec, killed), run_experiment(spec, undisturbed)
    assert resumed.is_done and resumed.metrics["step"].tolist() == list(range(1, 15))
    timings = ["seconds_rollout", "seconds_update"]
    pd.testing.assert_frame_equal(resumed.metrics.drop(columns=timings), whole.metrics.drop(columns=timings))
    pd.testing.assert_frame_equal(resumed.covariance, whole.covariance)
    pd.testing.assert_frame_equal(resumed.evaluation, whole.evaluation)
    weights = killed / "warmup" / f"{resumed.provenance['warmup']['name']}.safetensors"
    assert resumed.provenance["warmup"]["sha256"] == digest(weights)
    assert len(resumed.provenance["earlier_attempts"]) == 2
    assert {p.name for p in resumed.folder.iterdir()} == {*RECORD_FILES, "done.json", ".lock"}


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "done.json"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["done.json"]


@pytest.fixture
def copied_package(tmp_path):
    """A copy of asymlib outside any checkout, and a function that runs a program with that copy."""
    shutil.copytree(Path(asymlib.__file__).parent, tmp_path / "asymlib", ignore=shutil.ignore_patterns("__pycache__"))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    clean["GIT_CEILING_DIRECTORIES"] = str(tmp_path.parent)

    def run(program):
        return subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=clean)

    return tmp_path, run


def test_an_installed_package_names_the_hash_of_its_source(copied_package):
    folder, run = copied_package
    program = "import json; from asymlib.runs.provenance import collect_provenance; print(json.dumps(collect_provenance()))"
    first = json.loads(run(program).stdout)
    assert first["commit"] is None and first["no_commit"] == "an installed package" and first["versions"]["asymlib"]
    with (folder / "asymlib" / "flips.py").open("a") as file:
        file.write("# changed")
    assert json.loads(run(program).stdout)["source_sha256"] != first["source_sha256"]
    (folder / ".git").write_text("no checkout")
    assert "fatal" in json.loads(run(program).stdout)["no_commit"]  # git's own reason


def test_a_run_outside_a_checkout_is_a_record(copied_package):
    _, run = copied_package
    done = run("""
from pathlib import Path
import pandas as pd
from asymlib import RunRecord, make_spec
from asymlib.runs.records import run_folder
from asymlib.runs.writer import RunWriter
spec = make_spec(method="grpo")
RunWriter(spec, run_folder(spec, Path("results"))).finish([], pd.DataFrame(), "NaN at step 1")
print(RunRecord(run_folder(spec, Path("results"))).fault)
""")
    assert done.stdout.strip() == "None", done.stderr


def test_provenance_tells_clean_from_changed_code(copied_package):
    folder, run = copied_package
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / ".gitignore").write_text("__pycache__/\n")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    answer = run("""
import json
from asymlib.runs.provenance import collect_provenance
answers = [collect_provenance()]
for path in ("notes.txt", "asymlib/flips.py", "asymlib/new.py"):  # not code, a changed file, a new file
    open(path, "a").write("# changed")
    answers.append(collect_provenance())
print(json.dumps(answers))
""")
    answers = json.loads(answer.stdout)
    assert [a["dirty"] for a in answers] == [False, False, True, True]
    assert len({a["commit"] for a in answers}) == 1 and len({a["diff_sha256"] for a in answers}) == 3


def test_the_nearest_results_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("ASYMLIB_RESULTS", raising=False)
    (tmp_path / "results").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert results_root() == tmp_path / "results"
    monkeypatch.setenv("ASYMLIB_RESULTS", str(tmp_path / "elsewhere"))
    assert results_root() == tmp_path / "elsewhere"
