"""Jobs of verl under a SLURM of two nodes on this host: cut off by the time limit or by hand, submitted again, an array."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from asymlib import make_spec
from asymlib.execution.running import state_of
from asymlib.lab import export
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import RunRecord, run_folder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEADLINE = 900  # seconds of any wait; a job needs about one minute on two idle cores, many on busy ones
SETTINGS = dict(prompts_per_step=8, prompts_per_minibatch=4, max_response_tokens=13, validation_every=4, learning_rate=1.5e-4)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm():
    """$SLURM_CONF of a cluster that stands until the module's end. Skips where nobody asked for it or it cannot be set up."""
    if "ASYMLIB_SLURM" not in os.environ:
        pytest.skip("`make test-slurm` runs it: it installs SLURM on this host, as root, and takes many minutes")
    with (
        tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        up = subprocess.run([HERE / "slurm_up.sh", folder], capture_output=True, text=True)
        try:
            if up.returncode == 3:
                pytest.skip(up.stderr.strip())
            assert up.returncode == 0, up.stderr
            patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
            patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # the jobs' asymlib is this one
            yield
        finally:
            subprocess.run([HERE / "slurm_down.sh", folder])


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "VALIDATION_PROMPTS", 10)
        return export.export_policy("small", 0, ROOT / "results", tmp_path_factory.mktemp("policy") / "policy")


@pytest.fixture
def site(tmp_path, policy, slurm):
    jobs = Site(tmp_path, policy)
    yield jobs
    jobs.cancel()


class Site:
    """A user's folder: submits, waits, looks."""

    def __init__(self, folder: Path, policy: Path):
        self.folder, self.policy, self.results, self.jobs = folder, policy, folder / "results", []

    def spec(self, method: str, steps: int):
        return make_spec(method=method, policy=str(self.policy), profile="cpu", steps=steps, engine="verl", **SETTINGS)

    def asymlib(self, *arguments: str) -> str:
        """What the command says; notes the job that it submits."""
        command = [sys.executable, "-m", "asymlib", *arguments, "--results", str(self.results)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        self.jobs += re.findall(r"Submitted batch job (\d+)", done.stdout)
        return done.stdout

    def submit(self, spec, nodes: int) -> str:
        file = self.folder / "spec.json"
        file.write_text(spec.model_dump_json())
        self.asymlib("verl", "launch", "--spec", str(file), "--slurm", "--submit", f"--nodes={nodes}")
        return self.jobs[-1]

    def wait(self, condition, job: str) -> None:
        """Until the condition holds; fails if the job ends or the deadline passes before."""
        until = time.monotonic() + DEADLINE
        while not condition():
            assert job in queue() and time.monotonic() < until, self.logs()
            time.sleep(0.5)

    def ended(self, job: str) -> str:
        """Wait for the job's end; its state and exit code as SLURM gives them. Nothing of it is left."""
        until = time.monotonic() + DEADLINE
        while job in queue():
            assert time.monotonic() < until, self.logs()
            time.sleep(0.5)
        while self.processes() and time.monotonic() < until:  # a killed process needs a moment on a busy machine
            time.sleep(0.5)
        assert not self.processes() and not list(Path("/tmp").glob(f"ray-{job}-*"))
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
        return " ".join(re.search(r"JobState=(\S+)|$", shown).groups() + re.search(r"ExitCode=(\S+)|$", shown).groups())

    def processes(self) -> list[str]:
        """Command lines of what has this folder in its environment, as all that a job starts does."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"ASYMLIB_DATA={self.folder}".encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:  # ended
                continue
        return found

    def logs(self) -> str:
        paths = [*self.folder.glob("*.log"), *self.results.glob("cpu/runs/*/main_ppo.log")]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-2000:]}" for path in paths)

    def cancel(self) -> None:
        for job in self.jobs:
            subprocess.run(["scancel", job], capture_output=True)
            until = time.monotonic() + 120
            while job in queue() and time.monotonic() < until:
                time.sleep(0.5)


def queue() -> set[str]:
    """The ids of jobs that wait or run, of an array that of all its tasks."""
    return set(subprocess.run(["squeue", "--noheader", "--format=%F"], capture_output=True, text=True).stdout.split())


def steps(spec, results) -> int:
    folder = run_folder(spec, results)
    return len(RunRecord(folder).metrics) if (folder / "metrics.jsonl").exists() else 0


def listening() -> list[str]:
    """ADDRESS:PORT of each socket that listens."""
    lines = subprocess.run(["ss", "--listening", "--tcp", "--numeric", "--no-header"], capture_output=True, text=True).stdout
    return [line.split()[3] for line in lines.splitlines()]


def test_two_nodes_are_one_ray_and_a_cancelled_job_goes_on_when_it_is_submitted_again(site):
    spec = site.spec("asymgrpo", steps=16)
    job = site.submit(spec, nodes=2)
    site.wait(lambda: steps(spec, site.results) >= 5, job)
    ports = listening()
    assert not [port for port in ports if port.endswith(":10001")]  # the Ray client's server
    dashboards = [port for port in ports if re.search(r":(6379|82[67]\d)$", port)]
    assert dashboards and all(port.startswith("127.0.0.1:") for port in dashboards)
    assert sum("raylet " in process.split("--")[0] + " " for process in site.processes()) == 2
    subprocess.run(["scancel", job], check=True)
    assert site.ended(job).startswith("CANCELLED")
    assert state_of(spec, site.results) == "cut off"

    assert site.ended(site.submit(spec, nodes=2)) == "COMPLETED 0:0", site.logs()
    record = RunRecord(run_folder(spec, site.results))
    assert record.is_done and record.metrics.step.tolist() == list(range(1, 17))
    assert len(record.provenance["earlier_attempts"]) == 1
    assert record.metrics.rollout_log_prob_gap.max() < 1e-4  # both nodes' rollouts follow the weights


def test_the_signal_before_the_time_limit_then_an_array_that_finishes_the_matrix(site):
    first, second = site.spec("grpo", steps=60), site.spec("reinforce", steps=60)
    job = site.submit(first, nodes=1)
    site.wait(lambda: steps(first, site.results) >= 5, job)
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    hours, minutes, _ = map(int, re.search(r"RunTime=(\d+):(\d+):(\d+)", shown).groups())
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={60 * hours + minutes + 2}"], check=True)
    state = site.ended(job)
    assert state == "FAILED 143:0", state + site.logs()  # its own end after SIGTERM, before SLURM's
    assert state_of(first, site.results) == "cut off"

    matrix = site.folder / "matrix.yaml"
    fields = "".join(
        f"  {name}: {value}\n" for name, value in {"policy": site.policy, "profile": "cpu", "steps": 60, **SETTINGS}.items()
    )
    matrix.write_text(f"defaults:\n  engine: verl\n{fields}axes: {{method: [grpo, reinforce]}}\n")
    assert load_matrix(matrix) == [first, second]
    submit = ["batch", str(matrix), "--slurm", "--jobs=1"]
    assert "0 of 2 runs are done or running, 2 are submitted" in site.asymlib(*submit)
    array, running = site.jobs[-1], []
    while array in queue():
        running.append([state_of(spec, site.results) for spec in (first, second)].count("running"))
        time.sleep(0.5)
    assert site.ended(array).startswith("COMPLETED 0:0"), site.logs()
    assert max(running) == 1
    records = [RunRecord(run_folder(spec, site.results)) for spec in (first, second)]
    assert all(record.is_done and len(record.metrics) == 60 for record in records)
    assert [len(record.provenance["earlier_attempts"]) for record in records] == [1, 0]
    assert "2 of 2 runs are done or running, 0 are submitted" in site.asymlib(*submit)
    assert site.jobs[-1] == array
