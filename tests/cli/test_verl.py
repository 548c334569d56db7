"""`asymlib verl config | launch` as a user types it, without training: what it prints, refuses and starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asymlib import make_spec
from asymlib.cli import verl as commands
from asymlib.cli.doctor import Finding
from asymlib.cli.main import main
from asymlib.runs.records import run_folder
from asymlib.verl.settings import Machine

PAPER = ("asymgrpo", "--policy", "Qwen/Qwen3-4B")


@pytest.fixture
def asymlib(tmp_path, monkeypatch, capsys):
    """asymlib(*arguments) -> exit status, standard output, standard error; the records lie below tmp_path."""
    monkeypatch.setenv("ASYMLIB_RESULTS", str(tmp_path / "results"))
    for name in list(os.environ):
        if name.startswith("ASYMLIB_") and name != "ASYMLIB_RESULTS":
            monkeypatch.delenv(name)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["asymlib", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, *capsys.readouterr()

    return call


def test_config_prints_every_setting_with_its_source(asymlib, tmp_path):
    status, output, _ = asymlib("verl", "config", *PAPER, "--set", "beta_pos=0.75")
    assert status == 0
    assert "# asymgrpo beta_pos=0.75, Qwen/Qwen3-4B, seed 0, 300 steps" in output
    assert "data.train_batch_size=128  # paper, Appendix C\n" in output
    assert "+algorithm.asymlib.beta_pos=0.75  # this run's change" in output
    settings = [line for line in output.splitlines() if "=" in line and not line.startswith("#")]
    assert len(settings) > 50 and all(re.fullmatch(r"\S+=.*  # .+", line) for line in settings)
    assert "asymlib verl rehearse" in output.splitlines()[-1]
    assert not (tmp_path / "results").exists()


def test_config_takes_a_mask_as_any_other_setting(asymlib):
    _, output, _ = asymlib("verl", "config", "reinforce", "--policy", "Qwen/Qwen3-4B", "--set", "mask_none_solved=true")
    assert "+algorithm.asymlib.mask_none_solved=True  # this run's change" in output


def test_config_can_print_what_verl_will_read(asymlib):
    status, output, _ = asymlib("verl", "config", *PAPER, "--resolved")
    config = yaml.safe_load(output)
    assert status == 0
    assert config["data"]["train_batch_size"] == 128
    assert config["actor_rollout_ref"]["actor"]["rollout_n"] == 8  # an interpolation, resolved


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["config", "grpo"], "policy='small': the lab trains it"),
        (["config", "gpro", "--policy", "Qwen/Qwen3-4B"], "unknown method 'gpro'"),
        (["config", "grpo", "--policy", "Qwen3-4B"], "policy='Qwen3-4B': no Hugging Face id"),
        (["launch", *PAPER, "--submit"], "--submit needs --slurm"),
        (["launch", *PAPER, "--slurm-option=--x"], "--slurm-option needs --slurm"),
        (["launch", *PAPER, "--slurm", "--ray-address", "a:1"], "it takes no --ray-address"),
        (["launch", *PAPER, "--nodes", "2"], "--nodes 2: more than one node needs --ray-address or --slurm"),
        (["launch", *PAPER, "--nodes", "0"], "--nodes"),
        (["launch", *PAPER, "--override", "data.seed=1"], "--override data.seed: the spec defines it"),
        (["rehearse", "grpo"], "a rehearsal is of a run on GPUs under verl"),
        (["config", *PAPER, "--override", "data.seed"], "'data.seed': must read NAME=VALUE"),
        (["launch", *PAPER, "--slurm", "--slurm-option", "oops"], "must read --name or --name=value"),
        (["launch", *PAPER, "--slurm", "--submit"], "there is no sbatch on this machine"),
    ],
)
def test_wrong_input_gets_one_line_exit_2_and_writes_nothing(asymlib, tmp_path, monkeypatch, arguments, said):
    monkeypatch.setenv("PATH", "/nonexistent")
    status, _, error = asymlib("verl", *arguments)
    assert status == 2 and said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_slurm_prints_a_script_and_starts_nothing(asymlib, tmp_path):
    status, output, _ = asymlib("verl", "launch", *PAPER, "--slurm", "--nodes", 2, "--slurm-option=--partition=h100")
    assert status == 0 and output.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=2\n" in output and "#SBATCH --partition=h100\n" in output
    assert not (tmp_path / "results").exists()


def test_a_machine_that_is_not_ready_is_told_what_to_do_and_nothing_starts(asymlib, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "run_in_subprocess", lambda *_: pytest.fail("it started"))
    monkeypatch.setattr("asymlib.cli.doctor.examine", lambda *_, **__: [Finding("GPUs", "missing", "none", "ask for others")])
    for command in (["verl", "launch", *PAPER], ["run", "grpo", "--policy", "Qwen/Qwen3-4B"]):
        status, output, _ = asymlib(*command)
        assert status == 1 and "missing GPUs: none\n        -> ask for others" in output


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://localhost:1", "nosuch.invalid:6379", "[::1]:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_listens_is_refused_at_once(asymlib, monkeypatch, address):
    monkeypatch.setattr(commands, "run_in_subprocess", lambda *_: pytest.fail("it started"))
    status, _, error = asymlib("verl", "launch", *PAPER, "--ray-address", address)
    assert status == 2 and error.startswith(f"asymlib: --ray-address {address}: no Ray answers there: ")
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert asymlib("verl", "launch", *PAPER)[0] == 2


@pytest.fixture
def ready(monkeypatch, finished_run):
    """A machine that has everything; training is replaced. Returns what it was started with."""
    asked = {}

    def examine(engine, results, gpus, policies, thorough):
        asked.update(engine=engine, gpus=gpus, policies=policies)
        return [Finding("Python", "ok", "3.12.0"), Finding("hub", "note", "silent")]

    def run(spec, results, watch):
        asked.update(spec=spec, machine=Machine.of_environment(), ray=os.environ.get("RAY_ADDRESS"))
        record = finished_run(**spec.model_dump())
        watch(record)
        watch(record)
        return record

    monkeypatch.setattr("asymlib.cli.doctor.examine", examine)
    monkeypatch.setattr(commands, "run_in_subprocess", run)
    monkeypatch.setattr(commands, "refuse_no_cluster", lambda address: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return asked


def test_launch_trains_the_spec_on_a_ray_of_its_own(asymlib, ready, tmp_path):
    status, output, _ = asymlib("verl", "launch", *PAPER, "--seed", 3)
    assert status == 0
    assert ready["spec"] == make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", seed=3)
    assert (ready["engine"], ready["gpus"], ready["policies"]) == ("h100", 4, ("Qwen/Qwen3-4B",))
    assert ready["machine"] == Machine(1, 4, "127.0.0.1") and ready["ray"] is None
    assert output.count("step 1/300") == 1  # each step once
    assert str(run_folder(ready["spec"], tmp_path / "results")) in output


def test_launch_on_a_cluster_counts_no_gpus_here(asymlib, ready):
    status, _, _ = asymlib("verl", "launch", *PAPER, "--ray-address", "10.0.0.1:6379", "--nodes", 2, "--gpus-per-node", 8)
    assert status == 0
    assert (
        ready["ray"] == "10.0.0.1:6379"
        and ready["machine"] == Machine(2, 8, ray_address="10.0.0.1:6379")
        and ready["gpus"] == 0
    )


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(script) -> the arguments and variables with which a SLURM job's script starts `asymlib`, and its standard input."""
    (tmp_path / "bin").mkdir()
    seen = tmp_path / "seen"
    note = f'cat > {seen}.input; env -0 > {seen}.env; printf "%s\\0" "${{@:3}}" > {seen}.arguments'
    nothing = dict.fromkeys(("srun", "scancel", "sbatch", "squeue"), "exit 0")
    for name, body in (nothing | {"python": f'[ "$1" = -m ] && {{ {note}; }} || echo 1'}).items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def run(script):
        slurm = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "48", "SLURMD_NODENAME": "n1"}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ASYMLIB_")}
        subprocess.run(["bash"], input=script, text=True, env=clean | slurm, check=True, capture_output=True, timeout=20)
        read = {name: Path(f"{seen}.{name}").read_text() for name in ("arguments", "env", "input")}
        variables = dict(line.split("=", 1) for line in read["env"].split("\0")[:-1])
        return read["arguments"].split("\0")[:-1], variables, read["input"]

    return run


MEMORY = "actor_rollout_ref.rollout.gpu_memory_utilization=0.4"


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["verl", "launch", *PAPER, "--slurm", "--override", MEMORY, "--patience", "77", "--gpus-per-node", "2"], {}),
        (["batch", "one.yaml", "--slurm", "--override", MEMORY, "--gpus-per-node", "2"], {"ASYMLIB_PATIENCE": "77"}),
        (
            ["batch", "one.yaml", "--slurm"],
            {"ASYMLIB_PATIENCE": "77", "ASYMLIB_OVERRIDES": f'["{MEMORY}"]', "ASYMLIB_GPUS_PER_NODE": "2"},
        ),
    ],
    ids=["launch", "batch", "environment"],
)
def test_the_machine_s_options_reach_the_run_of_a_slurm_job(asymlib, ready, job, tmp_path, monkeypatch, command, variables):
    """From the user's command through the script's own to what verl is started with; both are the real command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("defaults: {policy: Qwen/Qwen3-4B, profile: h100}\naxes: {method: [asymgrpo]}\n")
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        status, script, error = asymlib(*command)
    assert status == 0, error
    if command[0] == "batch":
        (file,) = (tmp_path / "results").rglob("*.slurm.sh")
        script = file.read_text()
    arguments, given, spec = job(script)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "spec.json").write_text(spec)
    status, _, error = asymlib(*[str(tmp_path / "spec.json") if word == "-" else word for word in arguments])
    assert status == 0, error
    assert ready["machine"] == Machine(1, 2, ray_address="127.0.0.1:1", patience=77, overrides=(MEMORY,))


def test_a_batch_of_verl_looks_at_the_machine_before_it_starts(asymlib, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("defaults: {policy: Qwen/Qwen3-4B, profile: h100}\naxes: {method: [asymgrpo]}\n")
    (tmp_path / "train.ipynb").write_text('{"cells": []}')
    monkeypatch.setattr("asymlib.cli.batch.run_batch", lambda *_: pytest.fail("it started"))
    monkeypatch.setattr("asymlib.cli.doctor.examine", lambda *_, **__: [Finding("data", "missing", "none", "prepare them")])
    status, output, _ = asymlib("batch", "one.yaml", "--notebook", "train.ipynb")
    assert status == 1 and output == "missing data: none\n        -> prepare them\n"


@pytest.mark.parametrize(
    ("override", "said"),
    [("data.seed=1", "--override data.seed: the spec defines it"), ("seed", "'seed': must read NAME=VALUE")],
)
def test_a_batch_refuses_a_setting_that_no_run_would_take(asymlib, tmp_path, monkeypatch, override, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("defaults: {policy: Qwen/Qwen3-4B, profile: h100}\naxes: {method: [asymgrpo]}\n")
    for mode in ("--slurm", "--rehearse"):
        status, _, error = asymlib("batch", "one.yaml", mode, "--override", override)
        assert status == 2 and said in error and len(error.splitlines()) == 1
    (tmp_path / "lab.yaml").write_text("axes: {method: [grpo]}\n")
    status, _, error = asymlib("batch", "lab.yaml", "--override", MEMORY)
    assert status == 2 and "a setting of verl, but the lab trains 'small'" in error


def test_a_failed_training_is_exit_status_1_with_the_log_s_end(asymlib, ready, monkeypatch):
    def fail(*_):
        raise RuntimeError("run abc (grpo) failed with status 1:\nout of memory")

    monkeypatch.setattr(commands, "run_in_subprocess", fail)
    status, output, _ = asymlib("verl", "launch", *PAPER)
    assert status == 1 and "out of memory" in output


def test_config_of_the_cpu_profile_prints_what_launch_gives(asymlib, tmp_path):
    policy = tmp_path / "policy"
    (policy / "data").mkdir(parents=True)
    (policy / "data" / "train.parquet").touch()
    (policy / "data" / "benchmarks.json").write_text('["walk-mix"]')
    (policy / "config.json").write_text("{}")
    _, said, _ = asymlib("verl", "config", "grpo", "--policy", policy, "--profile", "cpu")
    assert "trainer.device=cpu" in said and "actor_rollout_ref.rollout.name=transformers" in said
    assert f"data.train_files={policy}/data/train.parquet" in said and "rollout.name=vllm" not in said
