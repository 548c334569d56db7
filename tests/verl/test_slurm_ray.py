"""The Ray of a SLURM job, started as its script does, by stand-ins for srun and scancel: where it listens, what finds it."""

import ipaddress
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asymlib import make_spec
from asymlib.cli import doctor
from asymlib.verl.setting import Machine
from asymlib.verl.slurm import render

psutil = pytest.importorskip("psutil")
SPEC = make_spec(method="grpo", policy="Qwen/Qwen3-4B")
DASHBOARD, CLIENT_SERVER = 8265, 10001
SRUN = """
while [ "$1" != bash ]; do shift; done
for node in $(seq 0 $(( {nodes} - 1 ))); do SLURM_NODEID=$node "$@" & pids="$pids $!"; done
trap 'kill -TERM $pids; wait; exit' TERM
echo $$ > {folder}/srun.pid
wait
"""
PYTHON = """
if [ "$1 $2" = "-m asymlib" ]; then  # the training: until the test has seen enough
    touch {folder}/up; until [ -e {folder}/seen ]; do sleep 0.1; done; exit 0
fi
exec {python} "$@"
"""


def program(path: Path, body: str) -> None:
    path.write_text("#!/bin/bash" + body)
    path.chmod(0o755)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(nodes) -> a job whose Ray is up, of so many nodes, all of them on this machine."""
    (tmp_path / "bin").mkdir()
    mark, jobs = f"test{os.getpid()}", []
    variables = {
        "HOME": tmp_path,
        "SLURM_JOB_ID": mark,
        "SLURMD_NODENAME": mark,
        "SLURM_CPUS_PER_TASK": 1,
        "ASYMLIB_MARK": mark,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    python = sys.executable

    def start(nodes: int) -> subprocess.Popen:
        program(tmp_path / "bin" / "srun", SRUN.format(nodes=nodes, folder=tmp_path))
        program(tmp_path / "bin" / "scancel", f"\nkill -TERM $(cat {tmp_path}/srun.pid)\n")
        program(tmp_path / "bin" / "python", PYTHON.format(folder=tmp_path, python=python))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
        script = render([SPEC], tmp_path / "results", tmp_path / "data", Machine(nodes=nodes, gpus_per_node=1))
        monkeypatch.setattr(sys, "executable", python)
        (tmp_path / "job.sh").write_text(script)
        process = subprocess.Popen(["bash", str(tmp_path / "job.sh")], cwd=tmp_path)
        jobs.append(process)
        deadline = time.monotonic() + 300
        while not (tmp_path / "up").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        return process

    yield start
    (tmp_path / "seen").touch()
    for process in jobs:
        assert process.wait(120) == 0
    left = psutil.wait_procs(marked(mark), timeout=30)[1]
    assert not left


def marked(mark: str) -> list:
    """The processes of the job."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("ASYMLIB_MARK") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def listening() -> dict[int, str]:
    """port -> address of what the job's processes listen on."""
    pids = {process.pid for process in marked(os.environ["ASYMLIB_MARK"])}
    found = psutil.net_connections("tcp")
    return {c.laddr.port: c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.pid in pids}


def is_local(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


@pytest.mark.slow
def test_the_ray_of_a_job_on_one_node_listens_on_localhost_only(job):
    job(1)
    found = listening()
    assert len(found) > 3 and all(map(is_local, found.values())), found


@pytest.mark.slow
def test_on_more_nodes_the_dashboard_stays_on_its_host_and_ray_s_servers_ask_for_the_job_s_token(job):
    """Ray's gRPC servers listen on all addresses there, and so do its metrics, which ask for nothing and can only be read."""
    process = job(2)
    found = listening()
    assert is_local(found[DASHBOARD]) and CLIENT_SERVER not in found
    (address,) = {p.environ()["RAY_ADDRESS"] for p in psutil.Process(process.pid).children() if "RAY_ADDRESS" in p.environ()}
    stranger = f"import ray; ray.init({address!r}, logging_level='error'); print('let in')"
    alone = {"RAY_AUTH_MODE": "disabled", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", stranger], env=os.environ | alone, capture_output=True, text=True, timeout=120)
    assert done.returncode and "let in" not in done.stdout and "token" in done.stderr.lower(), done.stderr


@pytest.mark.slow
def test_the_doctor_s_ray_starts_beside_another_cluster(job, tmp_path):
    job(1)
    assert DASHBOARD in listening()
    found = doctor._ray(doctor.Wanted("verl-cpu", tmp_path, 0, ()))
    assert found.state == "ok" and found.found.endswith("starts"), found


def test_what_listens_is_seen(monkeypatch):
    """The check above would see a server on all addresses."""
    monkeypatch.setattr(sys.modules[__name__], "marked", lambda mark: [psutil.Process()])
    monkeypatch.setenv("ASYMLIB_MARK", "x")
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert listening()[server.getsockname()[1]] == "0.0.0.0"
