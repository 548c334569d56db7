"""What the doctor finds here, and what it says of machines that lack something."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asymlib.cli import doctor
from asymlib.cli.doctor import PURPOSES, ROOT, Finding, examine, pins


def finding(name: str, engine: str, results: Path, gpus: int = 4, thorough: bool = False) -> Finding:
    return next(f for f in examine(engine, results, gpus, thorough=thorough) if f.name == name)


@pytest.mark.parametrize("engine", ["lab", "verl-cpu"])
def test_this_machine_trains_on_a_cpu(engine, tmp_path):
    findings = examine(engine, tmp_path, thorough=False)
    assert not [str(f) for f in findings if f.missing]
    assert {"Python", "commit", "versions", "disk"} == {f.name for f in findings}


@pytest.mark.slow
def test_the_plugin_loads_here(tmp_path):
    machine = doctor.Wanted("verl-cpu", tmp_path, 0, ())
    assert doctor._plugin(machine) == Finding("verl plugin", "ok", "registered")


@pytest.mark.parametrize(("engine", "status"), [("lab", 0), ("h10", 2)])
def test_the_command_line(engine, status, tmp_path):
    command = [sys.executable, "-m", "asymlib", "doctor", "--for", engine, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "did you mean 'h100'?" in done.stderr if status else "ok      Python" in done.stdout


def test_something_missing_is_exit_status_1(tmp_path, monkeypatch, capsys):
    from asymlib.cli.main import main

    missing = (lambda machine: Finding("GPUs", "missing", "none", "buy some"), PURPOSES, False)
    monkeypatch.setattr(doctor, "CHECKS", (missing,))
    monkeypatch.setattr("sys.argv", ["asymlib", "doctor", "--for", "h100", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert capsys.readouterr().out == "missing GPUs: none\n        -> buy some\n"


H100, A100_40 = "NVIDIA H100 80GB HBM3, 81559, 580.65.06", "NVIDIA A100-SXM4-40GB, 40960, 580.65.06"


@pytest.mark.parametrize(
    ("printed", "state", "said"),
    [
        ("\n".join([H100] * 4), "ok", "81559 MiB"),
        ("\n".join([H100] * 2), "missing", "81559 MiB, NVIDIA"),
        (None, "missing", "none"),
        ("\n".join([H100.replace("580", "550")] * 4), "missing", "driver 550"),
        ("\n".join([A100_40] * 4), "note", "40960 MiB"),
    ],
)
def test_gpus(tmp_path, monkeypatch, printed, state, said):
    monkeypatch.setattr(doctor, "_output", lambda command: printed if command[0] == "nvidia-smi" else "abc")
    found = finding("GPUs", "h100", tmp_path)
    assert found.state == state and said in found.found
    assert (found.advice == "") == (state == "ok")


@pytest.mark.parametrize(
    ("policies", "state"), [(("Qwen/Qwen3-0.6B",), "ok"), (("Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-Math-1.5B"), "note")]
)
def test_a_card_of_24_gb_is_what_the_small_model_is_meant_for(tmp_path, monkeypatch, policies, state):
    card = "NVIDIA GeForce RTX 4090, 24564, 580.65.06"
    monkeypatch.setattr(doctor, "_output", lambda command: card if command[0] == "nvidia-smi" else "abc")
    (found,) = [f for f in examine("h100", tmp_path, 1, policies, thorough=False) if f.name == "GPUs"]
    assert found.state == state and ("gpu1.yaml" in found.advice) == (state == "note")


def test_versions_are_those_of_the_lock(tmp_path, monkeypatch):
    pinned = pins(ROOT / "requirements" / "h100.lock")
    monkeypatch.setattr(doctor, "_version", pinned.get)
    assert finding("versions", "h100", tmp_path).state == "ok"
    monkeypatch.setattr(doctor, "_version", lambda package: (pinned | {"vllm": None, "torch": "2.13.0"}).get(package))
    found = finding("versions", "h100", tmp_path)
    assert found.missing and found.found == "not installed: vllm; torch 2.13.0 (lock: 2.11.0)"
    assert "conda env create" in found.advice


def test_flash_attention_is_needed_on_gpus_only(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    found = finding("flash-attn", "h100", tmp_path)
    assert found.missing and "requirements/flash-attn.lock" in found.advice
    assert "flash-attn" not in {f.name for f in examine("verl-cpu", tmp_path, thorough=False)}


def test_disk(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100e9})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    small = examine("h100", tmp_path / "not yet", policies=("Qwen/Qwen2.5-Math-1.5B",), thorough=False)
    assert next(f for f in small if f.name == "disk").state == "ok"
    large = finding("disk", "h100", tmp_path / "not yet")
    assert large.missing and "100 GB free" in large.found and "ASYMLIB_RESULTS" in large.advice


def test_data(tmp_path, monkeypatch):
    monkeypatch.setenv("ASYMLIB_DATA", str(tmp_path))
    assert finding("data", "h100", tmp_path).advice == "asymlib data prepare"
    (tmp_path / "manifest.json").write_text("torn")
    assert finding("data", "h100", tmp_path).missing
    (tmp_path / "manifest.json").write_text(json.dumps({"rows_kept": {"train": 7400, "math-500": 500}}))
    assert finding("data", "h100", tmp_path) == Finding("data", "ok", "train 7400, math-500 500")


def test_a_python_that_an_engine_does_not_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 13, 0))
    assert finding("Python", "h100", tmp_path).missing and not finding("Python", "lab", tmp_path).missing
    monkeypatch.setattr(doctor.sys, "version_info", (3, 11, 4))
    assert finding("Python", "lab", tmp_path).missing


def test_a_plugin_that_is_not_installed_and_one_that_does_not_load(tmp_path, monkeypatch):
    machine = doctor.Wanted("verl-cpu", tmp_path, 0, ())
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: [])
    assert doctor._plugin(machine).advice == "pip install --no-deps --editable ."
    found = doctor._try("verl plugin", "raise RuntimeError('no estimator')", "reinstall")
    assert found == Finding("verl plugin", "missing", "RuntimeError: no estimator", "reinstall")


def test_a_program_that_hangs_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    assert doctor._try("Ray", "import time; time.sleep(9)", "wait") == Finding(
        "Ray", "missing", "no answer after 0.2 s", "wait"
    )


def test_a_silent_hub_and_an_offline_one_are_notes(tmp_path, monkeypatch):
    machine = doctor.Wanted("h100", tmp_path, 4, ())
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert doctor._hub(machine).state == "note" and "does not answer" in doctor._hub(machine).found
    monkeypatch.setenv("HF_ENDPOINT", "not an address")
    assert doctor._hub(machine).state == "note"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor._hub(machine) == Finding("hub", "note", "HF_HUB_OFFLINE is set", "models and data must be here already")
