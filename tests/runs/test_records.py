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

import asymlib
from asymlib import RunRecord, load_runs, run_experiment
from asymlib.runs.records import RECORD_FILES, gather, results_root, run_folder
from asymlib.support.files import write_atomically


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


def test_a_torn_last_line_of_metrics_is_not_read(finished_run):
    folder = finished_run().folder
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    assert RunRecord(folder).metrics["step"].tolist() == [1, 2]
    (folder / "metrics.jsonl").write_text('{"st')
    assert RunRecord(folder).metrics.empty


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


def test_provenance_fails_outside_a_checkout(copied_package):
    folder, run = copied_package
    answer = run("from asymlib.runs.provenance import collect_provenance; collect_provenance()")
    assert answer.returncode == 1
    message = answer.stderr.strip().splitlines()[-1]
    assert message == f"RuntimeError: provenance: {folder} is not a git checkout with a commit, so the run cannot name its code"


def test_provenance_tells_clean_from_changed_code(copied_package):
    folder, run = copied_package
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / ".gitignore").write_text("__pycache__/\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
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
