"""`asymlib batch --rehearse` without training: one page a run, one of all, nothing done twice unless something differs."""

import json
import subprocess
from pathlib import Path

import pytest
from tiny_rehearsal import MEASURED
from typer import Exit

from asymlib.cli import rehearse as commands
from asymlib.cli.doctor import Finding
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import run_folder
from asymlib.runs.writer import RunWriter
from asymlib.verl.rehearse import MEMORY, cut_data, project, shortened
from asymlib.verl.target import machine_of

MATRIX = Path(__file__).parents[2] / "notebooks" / "experiments" / "h100_section4.yaml"


@pytest.fixture
def rehearsed(monkeypatch):
    """The specs that were run, on a machine that seems to have GPUs; those in `broken` fail."""
    run, broken = [], set()

    def run_short(short, place, gpus):
        run.append(short)
        folder = run_folder(short, place)
        (folder / "checkpoints" / "global_step_2").mkdir(parents=True, exist_ok=True)
        (folder / "main_ppo.log").write_text("torch.OutOfMemoryError: CUDA out of memory." if short.method == "dr_grpo" else "")
        RunWriter(short, folder).note(verl=machine_of(short)._asdict())
        if short.method in broken:
            raise RuntimeError("verl ended with status 1")
        return MEASURED | {"gpus": gpus}

    monkeypatch.setattr(commands, "_run", run_short)
    monkeypatch.setattr(commands, "_has_gpus", lambda: True)
    monkeypatch.setattr("asymlib.cli.doctor.examine", lambda *_, **__: [])
    monkeypatch.setattr(commands.os, "environ", dict(commands.os.environ))
    monkeypatch.setattr(commands.rehearse, "cut_data", lambda source, target: None)
    return run, broken


def test_a_matrix_is_rehearsed_once_and_what_failed_is_tried_again(rehearsed, tmp_path, capsys):
    (run, broken), specs = rehearsed, load_matrix(MATRIX)
    broken.add("grpo")
    with pytest.raises(Exit):
        commands.rehearse_matrix(specs, "section4", tmp_path, 4, None, None)
    assert [short.method for short in run] == [spec.method for spec in specs]
    page = tmp_path / "rehearsal" / "section4.md"
    assert "13 runs, 1 failed" in page.read_text() and "verl ended with status 1" in capsys.readouterr().out
    broken.clear()
    commands.rehearse_matrix(specs, "section4", tmp_path, 4, None, None)
    assert [short.method for short in run[14:]] == ["grpo"] and "14 runs, 0 failed" in page.read_text()
    hours = sum(project(spec, shortened(spec, False), MEASURED, 3.0).hours for spec in specs)
    assert f"| all | | | | | {hours:.1f} |" in page.read_text() and "At $3 a GPU-hour" in page.read_text()
    for spec in specs:
        folder = run_folder(shortened(spec, False), tmp_path / "rehearsal")
        assert spec.run_id in (folder / "rehearsal.md").read_text() and not (folder / "checkpoints").exists()


def test_other_gpus_settings_or_code_are_rehearsed_anew_and_said(rehearsed, tmp_path, monkeypatch, capsys):
    (run, _), specs = rehearsed, load_matrix(MATRIX)[:1]
    override = "actor_rollout_ref.rollout.gpu_memory_utilization=0.4"

    def again(gpus, overrides):
        before = len(run)
        commands.rehearse_matrix(specs, "one", tmp_path, gpus, overrides, None)
        return len(run) - before, capsys.readouterr().out

    assert again(4, None)[0] == 1 and again(4, None)[0] == 0
    times, said = again(4, [override])
    assert times == 1 and f"the last time was with overrides [], now ['{override}']" in said
    times, said = again(2, [override])
    assert times == 1 and "the last time was with gpus_per_node 4, now 2" in said
    assert again(2, [override])[0] == 0
    path = run_folder(run[-1], tmp_path / "rehearsal") / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "0" * 40}))
    assert again(2, [override])[0] == 0  # git does not know that commit
    monkeypatch.setattr(commands, "ROOT", repository(tmp_path / "code"))
    git = ["git", "-C", str(tmp_path / "code")]
    first = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": first}))
    for changed, anew in (("README.md", 0), ("asymlib/x.py", 1)):
        (tmp_path / "code" / changed).write_text("new")
        subprocess.run([*git, *COMMIT], check=True)
        times, said = again(2, [override])
        assert times == anew and (f"the last time was with the code of commit {first[:12]}" in said) == bool(anew)


@pytest.mark.parametrize(("name", "value"), [("ASYMLIB_NODES", "2"), ("RAY_ADDRESS", "10.0.0.1:6379")])
def test_other_nodes_take_no_part_and_that_is_said(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    machine = commands._one_node(load_matrix(MATRIX)[0], None, gpus_per_node=2)
    assert (machine.nodes, machine.gpus_per_node, machine.ray_address) == (1, 2, None)
    assert "ASYMLIB_NODES and RAY_ADDRESS do nothing here" in capsys.readouterr().out


COMMIT = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "--message=x"]


def repository(folder):
    (folder / "asymlib").mkdir(parents=True)
    for name in ("README.md", "asymlib/x.py"):
        (folder / name).write_text("old")
    for command in (["init", "--quiet"], ["add", "."], COMMIT):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def test_a_lack_of_memory_comes_with_what_to_change(rehearsed, tmp_path, capsys):
    (_, broken), specs = rehearsed, [spec for spec in load_matrix(MATRIX) if spec.method in ("grpo", "dr_grpo")]
    broken |= {"grpo", "dr_grpo"}
    with pytest.raises(Exit):
        commands.rehearse_matrix(specs, "two", tmp_path, 4, None, None)
    said = capsys.readouterr().out
    assert said.count("verl ended with status 1") == 2 and said.count(MEMORY) == 1


def test_gpus_without_prepared_data_are_refused_before_anything_is_rehearsed(rehearsed, tmp_path, monkeypatch, capsys):
    run, _ = rehearsed
    missing = Finding("data", "missing", "no manifest.json", "asymlib data prepare")
    monkeypatch.setattr("asymlib.cli.doctor.examine", lambda *_, **__: [missing])
    with pytest.raises(SystemExit):
        commands.rehearse_matrix(load_matrix(MATRIX), "section4", tmp_path, 4, None, None)
    assert not run and "asymlib data prepare" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_prepared_sets_are_cut_evenly_and_keep_their_answers_where_there_is_a_gpu(tmp_path):
    cut_data(tmp_path / "absent", tmp_path / "whole")
    (tmp_path / "whole" / "manifest.json").write_text("{}")
    assert cut_data(tmp_path / "whole", tmp_path / "cut") == "the prepared sets, cut"
    import pyarrow.parquet as pq

    whole, cut = (pq.read_table(tmp_path / name / "train.parquet").to_pylist() for name in ("whole", "cut"))
    assert cut == whole and len(pq.read_table(tmp_path / "cut" / "math-500.parquet")) == 4
