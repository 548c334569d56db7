"""Damaged progress never ends as a record, and a damaged record stops nothing: each example was once seen to fail."""

import json
import random
import re
import shutil
import sys
import warnings

import pandas as pd
import pytest
import tiny_lab

from asymlib import RunRecord, load_runs, make_spec
from asymlib.cli.main import main
from asymlib.execution.running import state_of
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import run_folder
from asymlib.runs.writer import RunWriter

SPEC = make_spec(method="grpo", steps=6)
NO_COVARIANCE = pd.DataFrame(columns=["step", "accuracy", "covariance"])


@pytest.fixture
def cut_off(tmp_path):
    """A run's folder: a snapshot after step 4, lines up to step 5."""
    writer = RunWriter(SPEC, run_folder(SPEC, tmp_path))
    for step in range(1, 6):
        writer.log({"step": step, "reward": step / 8})
        if step == 4:
            writer.keep(b"state of step 4")
    return writer.folder


def lines(change):
    def damage(folder):
        path = folder / "metrics.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return damage


def flip_a_bit(name, seed):
    def damage(folder):
        content = bytearray((folder / name).read_bytes())
        place = random.Random(seed).randrange(len(content) if name == "snapshot.pt" else content.index(b'"step": 5') - 2)
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return damage


DAMAGES = {
    "no lines": lambda folder: (folder / "metrics.jsonl").unlink(),
    "a line less": lines(lambda found: found[:2] + found[3:]),
    "a line twice": lines(lambda found: found[:1] + found),
    "backwards": lines(lambda found: found[::-1]),
    "renamed keys": lines(lambda found: [line.replace("reward", "rewards") for line in found]),
    "NaN": lines(lambda found: [line.replace("0.125", "NaN") for line in found]),
    "not UTF-8": lambda folder: (folder / "metrics.jsonl").write_bytes(b"\xff\xfe"),
    "empty snapshot": lambda folder: (folder / "snapshot.pt").write_bytes(b""),
    "half a snapshot": lambda folder: (folder / "snapshot.pt").write_bytes((folder / "snapshot.pt").read_bytes()[:-5]),
    "a snapshot of nothing": lambda folder: (folder / "snapshot.pt").write_bytes(b"[" * 100_000),
    **{f"bit {seed} of {name}": flip_a_bit(name, seed) for seed in range(6) for name in ("snapshot.pt", "metrics.jsonl")},
}


def test_undamaged_progress_is_continued(cut_off):
    writer = RunWriter(SPEC, cut_off)
    assert writer.resume() == b"state of step 4"
    assert RunRecord(cut_off).metrics["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_progress_starts_anew_and_says_so(cut_off, name):
    DAMAGES[name](cut_off)
    writer = RunWriter(SPEC, cut_off)
    with pytest.warns(UserWarning, match="the run starts anew"):
        assert writer.resume() is None
    for step in range(1, 7):
        writer.log({"step": step, "reward": step / 8})
    writer.finish([], NO_COVARIANCE)
    record = RunRecord(cut_off)
    assert record.is_done and record.metrics["reward"].tolist() == [step / 8 for step in range(1, 7)]
    assert record.provenance["started_anew"]


def test_other_starting_weights_are_not_continued(cut_off):
    writer = RunWriter(SPEC, cut_off)
    writer.note(warmup={"name": "small-0", "sha256": "f" * 64})
    with pytest.warns(UserWarning, match="of another spec, method or starting weights"):
        assert writer.resume() is None


@pytest.mark.parametrize("other", [{"seed": 1}, {"steps": 3}, {"learning_rate": 0.5}])
def test_another_specs_snapshot_is_not_continued(cut_off, tmp_path, other):
    """As where its files were copied into the folder: lines and snapshot fit each other, not the run."""
    spec = make_spec(**{"method": "grpo", "steps": 6} | other)
    shutil.copytree(cut_off, run_folder(spec, tmp_path))
    with pytest.warns(UserWarning, match="of another spec, method or starting weights"):
        assert RunWriter(spec, run_folder(spec, tmp_path)).resume() is None


@pytest.mark.parametrize("steps", [0, 5, 7])
def test_a_run_ends_with_a_line_for_each_step(cut_off, steps):
    """Whatever its engine says: else the record would be a valid one of another run. The next attempt starts anew."""
    writer = RunWriter(SPEC, cut_off)
    for step in range(1, steps + 1):
        writer.log({"step": step, "reward": step / 8})
    with pytest.raises(RuntimeError, match=rf"{steps} lines for 6 steps; run it again"):
        writer.finish([], NO_COVARIANCE)
    assert RunRecord(cut_off).fault == "no done.json" and RunWriter(SPEC, cut_off).resume() is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000, b'{"earlier_attempts": 3}'])
def test_damaged_provenance_is_as_none(cut_off, content):
    (cut_off / "provenance.json").write_bytes(content)
    RunWriter(SPEC, cut_off)
    assert RunRecord(cut_off).provenance["earlier_attempts"] == []


def replace(name, make):
    def damage(folder):
        (folder / name).unlink()
        make(folder / name)

    return damage


@pytest.mark.parametrize("name", ["spec.json", "provenance.json", "metrics.parquet", "evaluation.json", "done.json"])
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.write_bytes(b"[" * 100_000),
    ],
    ids=["a folder", "a link to itself", "a dangling link", "deep nesting"],
)
def test_one_unreadable_record_stops_nothing_and_is_named(finished_run, tmp_path, name, make):
    whole, damaged = finished_run(seed=1), finished_run(seed=2)
    replace(name, make)(damaged.folder)
    with pytest.warns(UserWarning, match=damaged.folder.name):
        assert load_runs(tmp_path)["run_id"].tolist() == [whole.folder.name]
    assert state_of(damaged_spec := make_spec(method="grpo", steps=2, seed=2), tmp_path) == "left", damaged_spec


@pytest.mark.parametrize("what", ["an empty folder", "a file"])
def test_a_record_of_which_nothing_is_left_is_named(finished_run, tmp_path, what):
    whole, gone = finished_run(seed=1), finished_run(seed=2)
    shutil.rmtree(gone.folder)
    gone.folder.mkdir() if what == "an empty folder" else gone.folder.write_text("")
    with pytest.warns(UserWarning, match=f"1 of 2 run folders skipped: {gone.folder.name}"):
        assert load_runs(tmp_path)["run_id"].tolist() == [whole.folder.name]


def test_linked_runs_count_and_a_linked_profile_is_named(finished_run, tmp_path):
    record = finished_run()
    shutil.move(record.folder, tmp_path / "elsewhere")
    record.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="elsewhere"):  # where the record lies it has no place
        assert load_runs(tmp_path)["run_id"].tolist() == [record.folder.name]
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "quick").symlink_to(tmp_path / "quick")
    with pytest.warns(UserWarning, match=r"quick \(a link, not followed\)"):
        assert load_runs(tmp_path / "others").empty


def test_results_may_lie_below_any_name_and_be_named_from_within(finished_run, tmp_path, monkeypatch):
    record = finished_run()
    shutil.copytree(tmp_path / "quick", tmp_path / "set-aside" / "results" / "quick")
    assert len(load_runs(tmp_path / "set-aside" / "results")) == 1
    assert len(load_runs(tmp_path)) == 1  # what the doctor set aside is out of sight
    monkeypatch.chdir(record.folder)
    assert RunRecord(".").is_done and RunRecord(f"../{record.folder.name}").is_done and len(load_runs("..")) == 1


@pytest.mark.parametrize("place", ["runs/copy", "backup/runs/{}", "quick/runs/{}", "lab/runs/{}", "runs/000000000000"])
def test_a_copy_of_a_record_is_not_counted(finished_run, tmp_path, place):
    record = finished_run()
    shutil.copytree(record.folder, tmp_path / "quick" / place.format(record.folder.name))
    with pytest.warns(UserWarning, match="1 of 2 run folders skipped"):
        assert len(load_runs(tmp_path / "quick")) == 1


@pytest.mark.parametrize("place", ["rehearsal/quick/runs", "backup/quick/runs"])
def test_what_lies_deeper_is_not_counted_from_the_root(finished_run, tmp_path, place):
    record = finished_run()
    shutil.copytree(record.folder, tmp_path / place / record.folder.name)
    with pytest.warns(UserWarning, match="1 of 2 run folders skipped"):
        assert [path.parent for path in load_runs(tmp_path).record.map(lambda one: one.folder)] == [tmp_path / "quick" / "runs"]


BREAK = {
    "a digit changed": (
        replace("evaluation.json", lambda path: path.write_text("[]")),
        "evaluation.json changed after the run",
    ),
    "spec missing": (lambda folder: (folder / "spec.json").unlink(), "no spec.json"),
    "spec a dangling link": (replace("spec.json", lambda path: path.symlink_to("nowhere")), "no spec.json"),
    "done.json of 5": (lambda folder: (folder / "done.json").write_text("5"), "done.json cannot be read"),
    "another place": (lambda folder: shutil.move(folder, folder.with_name("0" * 12)), "its place is quick/runs/"),
}


@pytest.mark.parametrize("asked", [False, True])
def test_the_doctor_lists_what_is_broken_and_moves_it_when_asked(finished_run, cut_off, tmp_path, monkeypatch, capsys, asked):
    """One record is whole, one cut off, one of each breakage; of the warm-ups one is damaged, one has no JSON."""
    whole, broken = finished_run(seed=50), [finished_run(seed=seed).folder for seed in range(1, 1 + len(BREAK))]
    for folder, (damage, _) in zip(broken, BREAK.values(), strict=True):
        damage(folder)
    broken[-1] = broken[-1].with_name("0" * 12)
    tiny_lab.write_checkpoints(tmp_path)
    sound, damaged, bare, *_ = sorted((tmp_path / "warmup").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    bare.with_suffix(".json").unlink()
    wrong = [*broken, damaged, damaged.with_suffix(".json"), bare]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments = ["--records", *["--set-aside"] * asked, "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["asymlib", "doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == (0 if asked else 1)
    assert sorted(re.findall(r"^(?:missing|note) +(\S+):", said, re.MULTILINE)) == sorted(
        str(path.relative_to(tmp_path)) for path in wrong
    )
    for _, reason in BREAK.values():
        assert reason in said
    moved = tmp_path / "set-aside"
    inside = {path for path in before if any(path == one or one in path.parents for one in wrong)}
    if not asked:
        assert not moved.exists() and {path: path.read_bytes() for path in before} == before
        return
    (stamp,) = moved.iterdir()
    for path, content in before.items():
        there = stamp / path.relative_to(tmp_path) if path in inside else path
        assert there.read_bytes() == content
        assert (path in inside) != path.exists()
    with pytest.warns(UserWarning, match=f"1 of 2 run folders skipped: {cut_off.name}"):
        assert load_runs(tmp_path / "quick")["run_id"].tolist() == [whole.folder.name]
    assert state_of(SPEC, tmp_path) == "cut off" and sound.exists()


@pytest.mark.parametrize("collapsed", [5, False, "", []])
def test_only_words_say_why_a_run_collapsed(finished_run, collapsed):
    path = finished_run().folder / "done.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"collapsed": collapsed}))
    assert RunRecord(path.parent).fault == "done.json cannot be read"


MATRICES = {
    "axes: {method: [grpo]}\naxes: {method: [dr_grpo]}": "key 'axes' stands twice",
    "axes: {method: [grpo], seed: []}": "axes.seed=[]",
    "axes: {method: [grpo, {seed: 1}], seed: [1]}": "set seed",
    "axes: {method: [grpo], seed: [yes]}": "seed='yes'",
    "axes: {method: [grpo], seed: [true]}": "seed=True: must not be true or false",
    "axes: {method: [grpo], steps: [1:30]}": "steps='1:30'",
    "axes: {method: [grpo], seed: [017]}": "seed='017'",
    "axes: {method: [grpo_entropy_adv], entropy_advantage: [[true, 2]]}": "entropy_advantage=[True, 2]: must not be true",
    "axes: {method: [{method: grpo, beta_pos: 1, method_changes: {beta_pos: 2}}]}": "beta_pos=1: stands in method_changes too",
    "axes: {method: [{method: grpo, method_changes: false}]}": "method_changes=False: must ",
    "axes: {method: [grpo]}\nexceptions: [{when: {metod: grpo}, skip: true}]": "'metod': did you mean 'method'",
    "axes: {method: [grpo]}\nexceptions: [{when: {method: dr_grpo}, skip: true}]": "matches nothing",
    "axes: {method: [grpo]}\nexceptions: [{when: {method: grpo}, skip: true}]": "nothing is left",
    "defaults: {a: &a [1, 1], b: [*a, *a]}\naxes: {method: [grpo]}": "alias *a",
    f"axes: {{method: [grpo], seed: {list(range(15_000))}}}": "15000 specs",
}


@pytest.mark.parametrize("text", MATRICES, ids=list(MATRICES.values()))
def test_a_matrix_that_is_not_what_was_written_is_refused(tmp_path, text):
    (tmp_path / "m.yaml").write_text(text)
    with warnings.catch_warnings(), pytest.raises(ValueError) as error:
        load_matrix(tmp_path / "m.yaml")
    assert MATRICES[text] in str(error.value)
