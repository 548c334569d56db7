"""The sbatch script: bash reads it, it runs with stand-ins for SLURM and Ray, and refuses before it writes anything."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_rehearsal import MEASURED

from asymlib import make_spec
from asymlib.runs.records import run_folder
from asymlib.verl.rehearse import project, shortened
from asymlib.verl.settings import Machine
from asymlib.verl.slurm import render, submit, without_client_server

SPEC = make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", beta_pos=0.75)


def script_of(folder: Path, nodes: int = 1, **kwargs) -> str:
    return render([SPEC], folder / "re sults", folder / "data", Machine(nodes=nodes), **kwargs)


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_bash_reads_it_and_it_asks_for_the_machines(tmp_path, nodes):
    script = script_of(tmp_path, nodes, options=["--partition=h100", "--account=a.b", "--exclusive"])
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {f"--nodes={nodes}", "--gpus-per-node=4", "--partition=h100", "--account=a.b", "--exclusive"} <= set(options)
    assert script.startswith("#!/bin/bash\n#SBATCH")


def test_the_time_limit_is_twice_what_a_rehearsal_on_gpus_projects_and_can_be_another(tmp_path):
    assert "--time=" not in script_of(tmp_path)  # the partition's
    short = shortened(SPEC, on_cpu=False)
    folder = run_folder(short, tmp_path / "re sults" / "rehearsal")
    folder.mkdir(parents=True)
    (folder / "rehearsal.json").write_text(json.dumps(MEASURED))
    hours = project(SPEC, short, MEASURED, 0).hours
    limit = next(line for line in script_of(tmp_path).splitlines() if "--time=" in line)
    assert 2 * hours <= int(limit.split("=")[1].split(":")[0]) < 2 * hours + 1
    later = script_of(tmp_path, options=["--time=2-00:00:00"])
    assert later.index("--time=2-00") > later.index(limit)  # sbatch takes the last


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Programs that write down how they were called, and a Python that does so for asymlib."""
    calls = tmp_path / "calls"
    folder = tmp_path / "bin"
    folder.mkdir()

    def program(name, body):
        path = folder / name
        path.write_text(f'#!/bin/bash\necho {name} "$@" >> {calls}\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        return path

    for name in ("ray", "sbatch", "squeue", "scancel", "srun"):
        program(name, "exit 0")
    program("getent", "exit 2")  # no such name
    program("hostname", "echo 10.0.0.1 10.0.0.2")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "48")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "0")
    launch = f"cat > {tmp_path}/spec.json; env > {tmp_path}/env"
    body = (
        f'case "$1 $2" in "-c import socket"*) echo 23456;; "-c import secrets"*) echo secret;; "-m asymlib") {launch};; esac'
    )
    python = program("python", body)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda: calls.read_text().splitlines()


def run(script: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash"], input=script, text=True, capture_output=True, timeout=20)


def test_one_node_launches_the_spec_on_a_ray_of_the_job(tmp_path, stand_ins):
    done = run(script_of(tmp_path))
    assert done.returncode == 0, done.stderr
    calls = stand_ins()
    (launch,) = [call for call in calls if "verl launch" in call]
    assert launch.startswith("python -m asymlib verl launch --spec - --results")
    assert launch.endswith("--nodes 1 --gpus-per-node 4 --ray-address 127.0.0.1:23456")
    assert make_spec(**json.loads((tmp_path / "spec.json").read_text())) == SPEC
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == ("token", "secret")  # the job's own
    assert "ROCR_VISIBLE_DEVICES" not in environment
    assert calls[-1] == "scancel --signal=TERM 7.0"  # the step of Ray, not every Ray of the user


def test_more_nodes_make_one_ray_cluster_on_their_network(tmp_path, stand_ins):
    done = run(script_of(tmp_path, nodes=3))
    assert done.returncode == 0, done.stderr
    (launch,) = [call for call in stand_ins() if "verl launch" in call]
    assert launch.endswith("--nodes 3 --gpus-per-node 4 --ray-address 10.0.0.1:23456")
    (step,) = [call for call in stand_ins() if call.startswith("srun")]
    assert step.startswith("srun --overlap --cpus-per-task=48")


def test_the_address_is_the_one_that_the_first_node_s_name_stands_for_and_not_localhost(tmp_path, stand_ins):
    for known, address in (("10.9.9.9 STREAM n1", "10.9.9.9"), ("127.0.1.1 STREAM n1", "10.0.0.1")):
        (tmp_path / "bin" / "getent").write_text(f'#!/bin/bash\n[ "$*" = "ahostsv4 n1" ] && echo {known}\n')
        assert run(script_of(tmp_path, nodes=2)).returncode == 0
        assert [call for call in stand_ins() if "verl launch" in call][-1].endswith(f"--ray-address {address}:23456")


def test_ray_counts_the_cpus_that_verl_s_actors_reserve_and_at_least_those_of_the_job(tmp_path, stand_ins, monkeypatch):
    """With fewer a run would wait forever: nine for the queue, three a GPU, one free."""
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\nwhile [ "$1" != bash ]; do shift; done\nSLURM_NODEID=0 exec "$@"\n')
    (tmp_path / "bin" / "ray").write_text(f"#!/bin/bash\necho ray $@ >> {tmp_path}/calls\nkill $PPID\n")
    for cpus, counted in (("8", 15), ("48", 48)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", cpus)
        run(render([SPEC], tmp_path / "results", tmp_path / "data", Machine(gpus_per_node=1)))
        assert f"--num-cpus={counted} " in [call for call in stand_ins() if call.startswith("ray start")][-1]


def test_a_task_of_an_array_trains_its_own_spec(tmp_path, stand_ins, monkeypatch):
    specs = [make_spec(method=method, policy="Qwen/Qwen3-4B") for method in ("grpo", "reinforce", "asymgrpo")]
    script = render(specs, tmp_path, tmp_path, name="section3", at_once=2)
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"--array=0-2%2", "--job-name=asymlib-section3"} <= set(options)
    for task, spec in enumerate(specs):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        assert run(script).returncode == 0
        assert make_spec(**json.loads((tmp_path / "spec.json").read_text())) == spec


def test_a_path_of_two_lines_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--results '.*nSBATCH --wrap=x': a path in a SLURM script must have printable"):
        render([SPEC], tmp_path / "x\nSBATCH --wrap=x", tmp_path)


def test_ray_s_client_server_is_left_out():
    params = SimpleNamespace(ray_client_server_port=10001)  # what `ray start` made of no option
    without_client_server(params, head=True)
    assert params.ray_client_server_port is None


def test_a_failed_training_fails_the_job(tmp_path, stand_ins):
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/bash\n[ "$1" = -m ] && exit 7\nexit 0\n')
    assert run(script_of(tmp_path)).returncode == 7


def test_the_end_of_the_job_reaches_the_training(tmp_path, stand_ins):
    python = tmp_path / "bin" / "python"
    python.write_text(
        f"#!/bin/bash\n[ $1 = -m ] || exit 0\ntrap 'echo stopped > {tmp_path}/stopped; exit 143' TERM\n"
        f"touch {tmp_path}/up\nsleep 20 & wait\n"
    )
    path = tmp_path / "job.sh"
    path.write_text(script_of(tmp_path))
    with subprocess.Popen(["bash", str(path)]) as job:
        while not (tmp_path / "up").exists():
            assert job.poll() is None
        job.terminate()
        assert job.wait(10) == 143
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize("option", ["partition=x", "--partition=x\n#SBATCH --wrap=x", "--x=$(id)", "--x y", "-p x", ""])
def test_what_is_no_option_is_refused(tmp_path, option):
    with pytest.raises(ValueError, match="must read --name or --name=value"):
        script_of(tmp_path, options=[option])


def test_submitting_leaves_the_script_in_the_record(tmp_path, stand_ins):
    script = script_of(tmp_path)
    submit(script, tmp_path / "record" / "slurm.sh")
    assert (tmp_path / "record" / "slurm.sh").read_text() == script
    assert stand_ins()[-1] == f"sbatch {tmp_path}/record/slurm.sh"


def test_a_job_that_is_in_the_queue_is_not_submitted_again(tmp_path, stand_ins):
    (tmp_path / "bin" / "squeue").write_text('#!/bin/bash\n[[ "$*" = *--me* ]] && echo 42\n')  # not a colleague's
    with pytest.raises(ValueError, match=f"asymlib-{SPEC.run_id} is in the queue, job 42; let it end, or `scancel 42`"):
        submit(script_of(tmp_path), tmp_path / "record" / "slurm.sh")
    assert not (tmp_path / "record").exists()


def test_without_sbatch_one_sentence_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="there is no sbatch on this machine"):
        submit("script", tmp_path / "record" / "slurm.sh")
    assert not (tmp_path / "record").exists()


def test_what_sbatch_refuses_is_said(tmp_path, stand_ins):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    with pytest.raises(ValueError, match=r"`sbatch .*slurm.sh`: invalid partition"):
        submit(script_of(tmp_path), tmp_path / "record" / "slurm.sh")
