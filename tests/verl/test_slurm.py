"""The sbatch script: bash reads it, it runs with stand-ins for SLURM and Ray, and refuses before it writes anything."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from asymlib import make_spec
from asymlib.verl.settings import Machine
from asymlib.verl.slurm import render, submit

SPEC = make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", beta_pos=0.75)


def script_of(folder: Path, nodes: int = 1, **kwargs) -> str:
    return render(SPEC, folder / "re sults", folder / "data", Machine(nodes=nodes), **kwargs)


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_bash_reads_it_and_it_asks_for_the_machines(tmp_path, nodes):
    script = script_of(tmp_path, nodes, options=["--partition=h100", "--account=a.b", "--exclusive"])
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {f"--nodes={nodes}", "--gpus-per-node=4", "--partition=h100", "--account=a.b", "--exclusive"} <= set(options)
    assert script.startswith("#!/bin/bash\n#SBATCH")


def test_the_time_limit_is_twice_the_estimate_and_can_be_another(tmp_path):
    from asymlib.verl.cost import assumptions, estimate

    hours = estimate(SPEC, assumptions(SPEC.policy)).hours
    script = script_of(tmp_path)
    limit = next(line for line in script.splitlines() if "--time=" in line)
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

    for name in ("ray", "sbatch"):
        program(name, "exit 0")
    program("srun", "exec sleep 30")
    program("hostname", "echo 10.0.0.1 10.0.0.2")
    monkeypatch.setenv("SLURMD_NODENAME", "node1")
    waits = f"until grep -q srun {calls}; do sleep 0.05; done"  # as the real one, until the nodes have joined
    python = program("python", f'if [ "${{1:-}}" = - ]; then {waits}; else cat > {tmp_path}/spec.json; fi')
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda: calls.read_text().splitlines()


def run(script: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash"], input=script, text=True, capture_output=True, timeout=20)


def test_one_node_launches_the_spec_on_a_ray_of_its_own(tmp_path, stand_ins):
    done = run(script_of(tmp_path))
    assert done.returncode == 0, done.stderr
    (call,) = stand_ins()
    assert call.startswith("python -m asymlib verl launch --spec - --results")
    assert "--nodes 1 --gpus-per-node 4 --dashboard-host 127.0.0.1" in call
    assert make_spec(**json.loads((tmp_path / "spec.json").read_text())) == SPEC


def test_more_nodes_make_one_ray_cluster_that_others_cannot_join(tmp_path, stand_ins):
    done = run(script_of(tmp_path, nodes=3))
    assert done.returncode == 0, done.stderr
    calls = stand_ins()
    token, head = calls.index("ray get-auth-token --generate"), next(i for i, c in enumerate(calls) if "--head" in c)
    assert token < head
    assert "--node-ip-address=10.0.0.1 --port=6379" in calls[head]
    assert "--dashboard-host=127.0.0.1 --ray-client-server-port=0" in calls[head]
    workers = next(c for c in calls if c.startswith("srun"))
    assert "--nodes=2 --ntasks=2 --exclude=node1 ray start --address=10.0.0.1:6379" in workers
    launch = next(c for c in calls if "verl launch" in c)
    assert "--nodes 3 --gpus-per-node 4 --ray-address 10.0.0.1:6379" in launch
    assert calls[-1] == "ray stop --force"


def test_a_failed_training_fails_the_job(tmp_path, stand_ins):
    python = tmp_path / "bin" / "python"
    python.write_text("#!/bin/bash\nexit 7\n")
    assert run(script_of(tmp_path)).returncode == 7


def test_the_end_of_the_job_reaches_the_training(tmp_path, stand_ins):
    python = tmp_path / "bin" / "python"
    python.write_text(
        f"#!/bin/bash\ntrap 'echo stopped > {tmp_path}/stopped; exit 143' TERM\ntouch {tmp_path}/up\nsleep 20 & wait\n"
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
    submit(script, tmp_path / "record")
    assert (tmp_path / "record" / "slurm.sh").read_text() == script
    assert stand_ins() == [f"sbatch {tmp_path}/record/slurm.sh"]


def test_without_sbatch_one_sentence_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="there is no sbatch on this machine; without --submit the script is printed"):
        submit("script", tmp_path / "record")
    assert not (tmp_path / "record").exists()


def test_what_sbatch_refuses_is_said(tmp_path, stand_ins):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    with pytest.raises(ValueError, match=r"sbatch refused .*: invalid partition"):
        submit("script", tmp_path / "record")
