"""Full disks, read-only folders, another user's, file systems without locks, leftovers of killed processes: one sentence, exit
status 1, nothing half-written, and the same command succeeds once there is space."""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
import sums
import tiny_lab

from asymlib import RunRecord, make_spec, run_experiment
from asymlib.execution import notebooks, running
from asymlib.execution.running import is_locked, run_in_subprocess
from asymlib.lab.warmup import WarmUp
from asymlib.runs.records import run_folder

SPEC = make_spec(method="grpo", steps=2, prompts_per_step=8, prompts_per_minibatch=4)
SETTINGS = ["--steps", "2", "--set", "prompts_per_step=8", "--set", "prompts_per_minibatch=4", "--plain"]
POWERLESS = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []  # root without its privilege to write everywhere
needs_setpriv = pytest.mark.skipif(bool(POWERLESS) and not shutil.which("setpriv"), reason="needs setpriv, or not to be root")


def asymlib(*arguments, folder, prefix=()) -> subprocess.CompletedProcess:
    command = [*prefix, sys.executable, "-m", "asymlib", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def one_sentence(done: subprocess.CompletedProcess, *words: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1 and lines[0].startswith("asymlib: "), done.stderr
    assert all(word in lines[0] for word in words), lines


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(options) -> a folder on a file system of its own."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a file system needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("options", ["size=2m", "nr_inodes=12"], ids=["no space", "no inodes"])
def test_a_full_disk_is_one_sentence_and_the_command_succeeds_when_space_returns(tmp_path, small_disk, options):
    results = small_disk(options)
    tiny_lab.write_checkpoints(tmp_path / "made")
    (results / "warmup").mkdir()
    for path in (tmp_path / "made" / "warmup").glob(f"{WarmUp('small', 0).name}.*"):
        with contextlib.suppress(OSError):
            shutil.copy(path, results / "warmup")
    ballast = []
    with contextlib.suppress(OSError):  # until nothing fits
        for number in range(10_000):
            ballast.append(results / f"ballast{number}")
            ballast[-1].write_bytes(bytes(4096) if "size" in options else b"")
    full = asymlib("run", "grpo", *SETTINGS, "--results", results, folder=tmp_path)
    one_sentence(full, "No space left on device", str(results))
    assert not list(results.rglob("*.partial")) and not RunRecord(run_folder(SPEC, results)).is_done
    for path in ballast:
        path.unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=50m,nr_inodes=1000", str(results)], check=True)
    shutil.copytree(tmp_path / "made" / "warmup", results / "warmup", dirs_exist_ok=True)
    assert asymlib("run", "grpo", *SETTINGS, "--results", results, folder=tmp_path).returncode == 0
    assert RunRecord(run_folder(SPEC, results)).is_done


@needs_setpriv
@pytest.mark.parametrize("owner", [None, 12345], ids=["read-only", "another user's"])
def test_reading_needs_no_permission_to_write_and_writing_says_what_forbids_it(tmp_path, owner):
    if owner and os.getuid():
        pytest.skip("giving a folder away needs root")
    results = tmp_path / "results"
    done = sums.run(results, make_spec(method="grpo", steps=2))
    (tmp_path / "m.yaml").write_text("axes: {method: [grpo], steps: [2], seed: [0, 1]}\n")
    left = run_folder(make_spec(method="grpo", steps=2, seed=1), results)
    left.mkdir()
    (left / ".lock").touch()
    folders = [results, *results.rglob("*")]
    for path in folders:
        os.chown(path, owner, owner) if owner else path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        status = asymlib("status", "m.yaml", "--results", results, folder=tmp_path, prefix=POWERLESS)
        assert status.returncode == 0 and "1 done, 1 left of 2" in status.stdout, status.stderr
        text = done.spec.model_dump_json()
        (tmp_path / "done.json").write_text(text)
        again = asymlib("run", "--spec", "done.json", "--results", results, folder=tmp_path, prefix=POWERLESS)
        assert "was done before" in again.stdout and not again.stderr
        other = asymlib("run", "grpo", "--steps", 2, "--seed", 1, "--results", results, folder=tmp_path, prefix=POWERLESS)
        one_sentence(other, "Permission denied", str(left))
    finally:
        for path in folders:
            path.chmod(0o755)


@needs_setpriv
@pytest.mark.parametrize("name", ["spec.json", "metrics.parquet", "done.json", "."])
def test_a_record_that_may_not_be_read_stops_nothing_and_is_named(tmp_path, name):
    results = tmp_path / "results"
    whole, closed = (sums.run(results, make_spec(method="grpo", steps=2, seed=seed)) for seed in (0, 1))
    baseline = sums.run(results, make_spec(method="reinforce", steps=2))
    (tmp_path / "m.yaml").write_text("axes: {method: [grpo], steps: [2], seed: [0, 1]}\n")
    (closed.folder / name).chmod(0)
    try:
        status = asymlib("status", "m.yaml", "--results", results, folder=tmp_path, prefix=POWERLESS)
        assert status.returncode == 0 and "1 done, 1 left of 2" in status.stdout, status.stderr
        code = f"from asymlib import load_runs; print(*load_runs({str(results)!r}).run_id)"
        command = [*POWERLESS, sys.executable, "-W", "always", "-c", code]
        loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert loaded.stdout.split() == sorted([whole.folder.name, baseline.folder.name])
        assert closed.folder.name in loaded.stderr
        compared = asymlib("compare", "grpo", "reinforce", "--results", results, folder=tmp_path, prefix=POWERLESS)
        assert compared.returncode == 0, compared.stderr
        assert "quick: 1 broken, not counted" in compared.stdout and closed.folder.name in compared.stdout
    finally:
        (closed.folder / name).chmod(0o755)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_an_error_that_names_the_lock(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError) as error:
        run_experiment(SPEC, tmp_path)
    assert error.value.errno == code and error.value.filename == str(run_folder(SPEC, tmp_path) / ".lock")
    assert not is_locked(run_folder(SPEC, tmp_path))  # status answers all the same


def test_those_who_ask_for_a_state_do_not_see_each_other(tmp_path):
    (tmp_path / ".lock").touch()
    seen = []
    threads = [threading.Thread(target=lambda: seen.extend(is_locked(tmp_path) for _ in range(500))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1500 and not any(seen)
    with running.FileLock(tmp_path / ".lock"):
        assert is_locked(tmp_path)


def test_the_next_run_removes_what_no_living_process_owns(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks.tempfile, "tempdir", str(tmp_path / "tmp"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kernels = [tmp_path / "tmp" / f"asymlib.{pid}.kernels" for pid in (dead.pid, os.getppid())]
    partials = [tmp_path / f".train.{pid}.ipynb" for pid in (dead.pid, os.getppid())]
    for folder in kernels:
        folder.mkdir(parents=True)
    for path in partials:
        path.touch()
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")], metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "book.ipynb")
    notebooks._runtime_folder.cache_clear()
    try:
        notebooks.execute_notebook(tmp_path / "book.ipynb", tmp_path / "train.ipynb", {})
    finally:
        notebooks._runtime_folder.cache_clear()
    assert [path.exists() for path in (*kernels, *partials)] == [False, True, False, True]
    assert (tmp_path / "train.ipynb").is_file()


@pytest.mark.parametrize(("by_files", "tries"), [(False, 2), (True, 1)])
def test_a_kernel_that_lost_its_port_is_started_once_more(tmp_path, monkeypatch, by_files, tries):
    import papermill

    started = []

    def die(*_, config, **__):
        started.append(config.KernelManager.transport)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", die)
    monkeypatch.setattr(notebooks, "LONGEST_SOCKETS", 1000 if by_files else 0)
    with pytest.raises(RuntimeError, match="Kernel died"):
        notebooks.execute_notebook(tmp_path / "book.ipynb", tmp_path / "train.ipynb", {})
    assert started == ["ipc" if by_files else "tcp"] * tries


def test_a_waiting_process_keeps_the_running_one_s_log(tmp_path):
    tiny_lab.write_checkpoints(tmp_path)
    weights = tmp_path / "warmup" / f"{WarmUp('small', 0).name}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    log = run_folder(SPEC, tmp_path) / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("what the running process said\n")
    with pytest.raises(RuntimeError, match=r"small-0-\w+\.json names; restore both"):  # a truncated warm-up names the file
        run_in_subprocess(SPEC, tmp_path)
    assert log.read_text().startswith("what the running process said\n") and weights.name in log.read_text()


PROVENANCE = """
import json
from asymlib.runs.provenance import collect_provenance
print(json.dumps(collect_provenance()))
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout of asymlib, and a function that says its provenance under more variables."""
    import json

    import asymlib as package

    root = tmp_path / "checkout"
    shutil.copytree(Path(package.__file__).parent, root / "asymlib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("__pycache__/\n")
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)

    def provenance(**variables) -> dict:
        environment = os.environ | {"PYTHONPATH": str(root), "HOME": str(tmp_path)} | variables
        command = [sys.executable, "-c", PROVENANCE]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return root, provenance


def test_provenance_is_this_checkout_s_whatever_a_git_hook_sets(checkout, tmp_path):
    _, provenance = checkout
    first = provenance()
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    hook = {"GIT_DIR": str(tmp_path / "other" / ".git"), "GIT_WORK_TREE": str(tmp_path), "GIT_INDEX_FILE": "nowhere"}
    assert first["commit"] and not first["dirty"] and provenance(**hook)["commit"] == first["commit"]


@pytest.mark.parametrize(
    "add",
    [
        lambda package: (package / "über.py").touch(),
        lambda package: (package / 'qu"ote\n.py').touch(),
        lambda package: (package / ".#flips.py").symlink_to("someone@host.1234"),
        lambda package: subprocess.run(["git", "init", "-q", str(package / "inner")], check=True),
        lambda package: os.mkfifo(package / "pipe"),
    ],
    ids=["an umlaut", "a quote and a newline", "an editor's lock", "a repository inside", "a pipe"],
)
def test_provenance_of_a_checkout_with_odd_files(checkout, add):
    root, provenance = checkout
    add(root / "asymlib")
    assert provenance()["commit"]


@pytest.mark.skipif(os.getuid() != 0, reason="giving a checkout away needs root")
def test_a_checkout_of_another_owner_quotes_git_s_reason(checkout):
    root, provenance = checkout
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345)
    found = provenance()
    assert found["commit"] is None and "dubious ownership" in found["no_commit"] and found["source_sha256"]
