"""The command line as a user types it: each command in a process of its own."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pexpect
import psutil
import pytest
from typer.testing import CliRunner

from asymlib import METHODS, RunRecord, make_spec
from asymlib.batch import load_matrix
from asymlib.cli import NEXT_STEPS, app, main
from asymlib.lab.warmup import WarmUp
from asymlib.records import run_folder
from asymlib.running import state_of

ROOT = Path(__file__).resolve().parent.parent


MATRIX = """
defaults: {profile: quick, steps: 60, prompts_per_step: 8, prompts_per_minibatch: 4}
axes: {method: [grpo, asymgrpo]}
"""


def asymlib(*arguments, folder: Path, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "asymlib", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **kwargs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "asymgrp"], "unknown method 'asymgrp': did you mean 'asymgrpo'"),
        (["run", "grpo", "--set", "beat_pos=0.9"], "unknown parameter 'beat_pos': did you mean 'beta_pos'?"),
        (["run", "grpo", "--set", "beta_pos=lots"], "beta_pos='lots'"),
        (["run", "grpo", "--set", "beta_pos"], "must read NAME=VALUE"),
        (["run", "grpo", "--seed", "one"], "--seed"),
        (["run", "grpo", "--seed", "-1"], "seed=-1"),
        (["run", "grpo", "--stesp", "3"], "--stesp"),
        (["run", "dr_grpo", "--set", "beta_pos=0.1"], "beta_pos=0.1: must stay unset"),
        (["run"], "method is missing"),
        (["rnu"], "rnu"),
        (["batch", "absent.yaml"], "absent.yaml: No such file"),
        (["batch", "torn.yaml"], "torn.yaml: not YAML"),
        (["batch", "list.yaml"], "list.yaml: must be a YAML mapping, not list"),
        (["batch", "binary.yaml"], "binary.yaml: not a text file"),
        (["batch", "typo.yaml"], "typo.yaml: unknown key 'axis': did you mean 'axes'?"),
        (["batch", "wrong.yaml"], "wrong.yaml: unknown method 'gpro'"),
        (["build", "lab"], "run a batch of that profile first"),
        (["build", "quik"], "unknown profile 'quik': did you mean 'quick'?"),
        (["build", "quick", "--notebooks", "nobooks"], "nobooks: holds no numbered notebook"),
        (["run", "grpo", "--profile", "qick"], "profile='qick': did you mean 'quick'?"),
        (["run", "grpo", "--policy", "smal"], "policy='smal': no Hugging Face id or folder; did you mean 'small'?"),
        (["run", "grpo", "--polcy", "small"], "--policy"),
        (["run", "grpo", "--steps", "0"], "steps=0: input should be greater than or equal to 1"),
        (["run", "grpo", "--steps"], "--steps"),
        (["run", "grpo", "asymgrpo"], "asymgrpo"),
        (["run", "grpo", "--set", "group_size=1.5"], "group_size=1.5"),
        (["run", "grpo", "--set", "beta_pos=["], "'beta_pos=[': the value is not YAML"),
        (["run", "grpo", "--set", "prompts_per_minibatch=5"], "prompts_per_minibatch=5: must divide prompts_per_step=32"),
        (["run", "ent_decrease", "--set", "group_size=2"], "group_size=2"),
        (["run", "--spec", "specs.yaml"], "specs.yaml: No such file or directory; did you mean 'spec.yaml'?"),
        (["run", "grpo", "--results", "spec.yaml"], "'spec.yaml' is a file"),
        (["run", "grpo", "--results", "spec.yaml/below"], "spec.yaml/below"),
        (["status", "wrong.yml"], "wrong.yml: No such file or directory; did you mean 'wrong.yaml'?"),
        (["batch", "spec.yaml", "--jobs", "0"], "--jobs"),
        (["batch", "good.yaml", "--notebook", "train.ipynb"], "--notebook train.ipynb: no such file"),
        (["batch", "good.yaml", "--device", "gpu"], "device='gpu': "),
        (["batch", "good.yaml", "--device", "cpu", "--jobs", "2"], "it goes with none of --jobs, --notebook, --ray-address"),
        (["compare", "grpo"], "Missing argument 'b'"),
        (["compare", "gpro", "asymgrpo"], "no run or method 'gpro'"),
        (["compare", "grpo", "asymgrpo", "--profile", "lib"], "profile='lib': did you mean 'lab'?"),
        (["comparee", "grpo", "asymgrpo"], "Did you mean 'compare'"),
    ],
)
def test_wrong_input_gets_one_line_exit_2_and_writes_nothing(tmp_path, monkeypatch, capfd, arguments, said):
    (tmp_path / "torn.yaml").write_text("axes: {method: [grpo\n")
    (tmp_path / "list.yaml").write_text("- grpo\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "typo.yaml").write_text("axis: {method: [grpo]}\naxes: {method: [grpo]}\n")
    (tmp_path / "wrong.yaml").write_text("axes: {method: [gpro]}\n")
    (tmp_path / "good.yaml").write_text("axes: {method: [grpo]}\n")
    (tmp_path / "spec.yaml").write_text("method: grpo\n")
    (tmp_path / "results" / "quick" / "runs").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["asymlib", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    stderr = capfd.readouterr().err
    assert ended.value.code == 2 and said in stderr and len(stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_process_ends_with_that_line_and_status(tmp_path):
    result = asymlib("run", "asymgrp", folder=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == "asymlib: unknown method 'asymgrp': did you mean 'asymgrpo'?\n"


def shown_commands(text: str) -> list[str]:
    """The asymlib commands in a text: lines that start with one, up to a comment or two spaces."""
    return re.findall(r"^ *(asymlib (?:[^ #\n]| (?! |#))+)", text, re.MULTILINE)


def test_no_argument_says_what_to_do_next(tmp_path):
    result = asymlib(folder=tmp_path)
    assert result.returncode == 0
    assert {command.split()[1] for command in shown_commands(result.stdout)} > {"run", "batch", "build", "status", "compare"}


DOCUMENTS = (NEXT_STEPS, *((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")))


@pytest.mark.parametrize("command", sorted({c for text in DOCUMENTS for c in shown_commands(text)}))
def test_every_command_that_is_shown_exists_with_its_options_and_files(command):
    _, *arguments = shlex.split(command)
    if arguments != ["--install-completion"]:
        result = CliRunner().invoke(app, [*arguments, "--help"])
        assert result.exit_code == 0, result.output
    for argument in arguments:
        assert not argument.startswith("notebooks/") or (ROOT / argument).exists()
    if arguments[0] == "run" and "--spec" not in arguments:
        assert arguments[1] in METHODS or arguments[1] == "--help"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("asymlib ru", ["run"]),
        ("asymlib run gr", ["grpo", "grpo_entropy_reg", "grpo_clip_higher", "grpo_entropy_adv"]),
        ("asymlib run grpo --policy b", ["base"]),
        ("asymlib run grpo --profile q", ["quick"]),
        ("asymlib run grpo --set beta_", ["beta_pos=", "beta_neg="]),
        ("asymlib batch ", ["mine.yaml", "notebooks/experiments/small.yaml"]),
        ("asymlib status notebooks/e", ["notebooks/experiments/small.yaml"]),
        ("asymlib compare ent", ["ent_increase", "ent_decrease"]),
        ("asymlib compare 0123", ["0123456789ab"]),
        ("asymlib run --spec mi", []),  # the shell's own file names
    ],
)
def test_the_completion_protocol_offers(tmp_path, typed, offered):
    (tmp_path / "notebooks" / "experiments").mkdir(parents=True)
    (tmp_path / "results" / "lab" / "runs" / "0123456789ab").mkdir(parents=True)
    for name in ("mine.yaml", "notebooks/experiments/small.yaml"):
        (tmp_path / name).touch()
    question = {"_ASYMLIB_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    program = "import sys; sys.argv = ['asymlib']; from asymlib.cli import main; main()"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=os.environ | question, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.split() == offered


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_tab_key_in_a_real_bash_after_install_completion(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(tmp_path), "PATH": path}
    install = "asymlib --install-completion; exit $?"
    installed = subprocess.run(["bash", "-c", install], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert installed.returncode == 0, installed.stderr
    bash = pexpect.spawn("bash", ["-i"], env=environment, cwd=str(ROOT), timeout=60, encoding="utf8", dimensions=(24, 160))
    try:
        for typed, completed in (
            ("asymlib run asymgrpo_s\t", "asymlib run asymgrpo_symmetric"),
            ("asymlib status notebooks/experiments/q\t", "notebooks/experiments/quick.yaml"),
            ("asymlib run --spec READ\t", "README.md"),
        ):
            bash.send(typed)
            bash.expect_exact(completed)
            bash.sendcontrol("u")
    finally:
        bash.close(force=True)


def test_a_run_says_what_is_changed_how_long_it_takes_and_what_came_out(tmp_path, cheap_results):
    options = ("--steps", 10, "--set", "prompts_per_step=8", "--set", "prompts_per_minibatch=4", "--results", cheap_results)
    first = asymlib("run", "grpo", "--set", "beta_pos=0.9", "--plain", *options, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    said = first.stdout.splitlines()
    assert said[0] == "GRPO with beta_pos 0.9 (not 0.5): small policy, seed 0"
    assert re.fullmatch(r"step 10/10 reward \d\.\d{3} entropy \d\.\d{3}, 0:00:00 left", said[1])
    assert re.fullmatch(r"run [0-9a-f]{12} \(grpo beta_pos=0.9, seed 0\): done", said[2]) and said[3].startswith(
        "steps 1 to 10: reward "
    )
    again = asymlib("run", "grpo", "--set", "beta_pos=0.9", *options, folder=tmp_path)
    assert "(grpo beta_pos=0.9, seed 0): was done before" in again.stdout
    run_id = next((cheap_results / "quick" / "runs").iterdir()).name
    assert f"asymlib compare {run_id} " in again.stdout


def test_run_takes_a_yaml_file_and_options_over_it(tmp_path, cheap_results):
    (tmp_path / "spec.yaml").write_text("{method: grpo, steps: 2, prompts_per_step: 8, prompts_per_minibatch: 4}")
    result = asymlib("run", "--spec", "spec.yaml", "--seed", 7, "--plain", "--results", cheap_results, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    spec = make_spec(method="grpo", steps=2, prompts_per_step=8, prompts_per_minibatch=4, seed=7)
    assert RunRecord(run_folder(spec, cheap_results)).is_done
    assert "step 2/2" in result.stdout


def without_times(record: RunRecord) -> tuple[pd.DataFrame, str, pd.DataFrame]:
    metrics = record.metrics.drop(columns=["seconds_rollout", "seconds_update"])
    return metrics, (record.folder / "evaluation.json").read_text(), record.covariance


@pytest.mark.slow
def test_a_killed_batch_started_again_ends_with_the_records_of_an_undisturbed_one(tmp_path, cheap_results):
    """Kill the whole process group once a run is past its first snapshot, then start two batches at once."""
    (tmp_path / "m.yaml").write_text(MATRIX)
    specs = load_matrix(tmp_path / "m.yaml")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    command = [sys.executable, "-m", "asymlib", "batch", "m.yaml", "--jobs", "2", "--notebook", str(notebook)]
    environment = os.environ | {"ASYMLIB_RESULTS": str(cheap_results)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **quiet) as process:
        deadline = time.monotonic() + 300
        while not any((run_folder(spec, cheap_results) / "snapshot.pt").exists() for spec in specs):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    while any(state_of(spec, cheap_results) == "running" for spec in specs):  # what it started must end by itself
        assert time.monotonic() < deadline
        time.sleep(0.1)
    metrics = [run_folder(spec, cheap_results) / "metrics.jsonl" for spec in specs]
    with next(path for path in metrics if path.exists()).open("a") as torn:
        torn.write('{"step": 5')

    status = asymlib("status", "m.yaml", "--results", cheap_results, folder=tmp_path)
    assert "cut off" in status.stdout
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    status = asymlib("status", "m.yaml", "--results", cheap_results, folder=tmp_path)
    assert "2 done of 2; nothing left" in status.stdout

    undisturbed = tmp_path / "undisturbed"
    (undisturbed / "warmup").mkdir(parents=True)
    for weights in (cheap_results / "warmup").glob("*.safetensors"):
        (undisturbed / "warmup" / weights.name).write_bytes(weights.read_bytes())
    for spec in specs:
        text = spec.model_dump_json()
        asymlib("run", "--spec", "-", "--plain", "--results", undisturbed, folder=tmp_path, input=text)
        resumed, whole = RunRecord(run_folder(spec, cheap_results)), RunRecord(run_folder(spec, undisturbed))
        assert resumed.is_done and whole.is_done
        (a, b, c), (x, y, z) = without_times(resumed), without_times(whole)
        pd.testing.assert_frame_equal(a, x, check_exact=True)
        pd.testing.assert_frame_equal(c, z, check_exact=True)
        assert b == y


@pytest.mark.slow
def test_a_batch_on_a_device_trains_one_stack_and_leaves_the_same_records(tmp_path, cheap_results):
    (tmp_path / "m.yaml").write_text(MATRIX.replace("steps: 60", "steps: 3"))
    command = ["batch", "m.yaml", "--device", "cpu", "--results", cheap_results]
    first, again = (asymlib(*command, folder=tmp_path) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stdout.endswith("2 of 2 runs done, 0 collapsed\n") and again.stdout.endswith("2 of 2 runs done, 0 collapsed\n")
    for spec in load_matrix(tmp_path / "m.yaml"):
        record = RunRecord(run_folder(spec, cheap_results))
        assert record.is_done and record.metrics["step"].tolist() == [1, 2, 3] and len(record.evaluation) == 6
        assert record.provenance["device"] == "cpu" and record.provenance["stacked"] == 2
        assert record.provenance["earlier_attempts"] == []  # the second batch left it as it was


@pytest.mark.slow
def test_one_failed_run_does_not_stop_the_others_and_the_exit_status_says_so(tmp_path, cheap_results):
    (tmp_path / "m.yaml").write_text(
        "defaults: {profile: quick, steps: 2, prompts_per_step: 8, prompts_per_minibatch: 4}\n"
        "axes: {method: [grpo], warmup_seed: [0, 99]}\n"
    )
    good, bad = load_matrix(tmp_path / "m.yaml")
    (cheap_results / "warmup" / f"{WarmUp('small', 99).name}.safetensors").write_bytes(b"not a checkpoint")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    result = asymlib("batch", "m.yaml", "--results", cheap_results, "--notebook", notebook, folder=tmp_path)
    assert result.returncode == 1
    assert "1 of 2 runs done, 1 failed" in result.stdout
    assert RunRecord(run_folder(good, cheap_results)).is_done
    assert "error" in json.loads((run_folder(bad, cheap_results) / "failed.json").read_text())
    assert "failed" in asymlib("status", "m.yaml", "--results", cheap_results, folder=tmp_path).stdout


def interrupt_when(ready, *arguments, folder: Path) -> str:
    """Press Ctrl-C in a command's terminal once `ready(process)`. Returns what it said; nothing that it started may be left."""
    command = [sys.executable, "-m", "asymlib", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}

    def heed_ctrl_c():  # a shell starts what runs behind it deaf to it, and so would be this command if pytest is
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=folder, preexec_fn=heed_ctrl_c, **streams) as process:
        deadline = time.monotonic() + 300
        while not ready(psutil.Process(process.pid)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said and not any(child.is_running() for child in started)
    return said


def command_to_go_on(said: str) -> list[str]:
    """The arguments of the command that an interrupted one names."""
    line = said.split("to go on: ")[1].strip()
    program, *arguments = shlex.split(line)
    assert program == "asymlib"
    return arguments


@pytest.mark.slow
def test_ctrl_c_in_a_run_keeps_its_snapshot_and_the_command_it_names_goes_on(tmp_path, cheap_results):
    spec = make_spec(method="grpo", steps=90, prompts_per_step=8, prompts_per_minibatch=4, validation_every=90)
    (tmp_path / "my spec.yaml").write_text(spec.model_dump_json())
    folder = run_folder(spec, cheap_results)
    arguments = ("run", "--spec", "my spec.yaml", "--results", cheap_results)
    early = interrupt_when(lambda p: (folder / "metrics.jsonl").exists(), *arguments, folder=tmp_path)
    assert re.search(r"stopped at step \d+ of 90; no snapshot yet, so it will start anew", early)
    late = interrupt_when(lambda p: (folder / "snapshot.pt").exists(), *arguments, folder=tmp_path)
    assert re.search(r"stopped at step [5-9]\d of 90; its last snapshot is kept in ", late)
    assert state_of(spec, cheap_results) == "cut off"
    again = asymlib(*command_to_go_on(late), folder=tmp_path)
    assert again.returncode == 0, again.stderr
    record = RunRecord(folder)
    assert record.is_done and record.metrics["step"].tolist() == list(range(1, 91))
    assert len(record.provenance["earlier_attempts"]) == 2


@pytest.mark.slow
def test_ctrl_c_in_a_batch_stops_all_runs_and_the_command_it_names_goes_on(tmp_path, cheap_results):
    (tmp_path / "m.yaml").write_text(MATRIX.replace("steps: 60", "steps: 60, validation_every: 60"))
    specs = load_matrix(tmp_path / "m.yaml")
    notebook = ROOT / "notebooks" / "10_train.ipynb"
    arguments = ("batch", "m.yaml", "--jobs", 1, "--results", cheap_results, "--notebook", notebook)
    at_once = interrupt_when(lambda p: p.children(), *arguments, folder=tmp_path)
    assert "stopped; 0 of 2 runs are done and kept" in at_once
    snapshot = run_folder(specs[0], cheap_results) / "snapshot.pt"
    said = interrupt_when(lambda p: snapshot.exists(), *arguments, folder=tmp_path)
    assert "stopped; 0 of 2 runs are done and kept, 1 were cut off and go on from their last snapshot" in said
    assert [state_of(spec, cheap_results) for spec in specs] == ["cut off", "left"]
    assert not list(cheap_results.rglob(".*.ipynb"))
    again = asymlib(*command_to_go_on(said), folder=tmp_path)
    assert again.returncode == 0 and "2 of 2 runs done, 0 failed" in again.stdout


@pytest.mark.slow
def test_ctrl_c_in_a_build_leaves_the_older_notebook_whole(tmp_path):
    (tmp_path / "results" / "quick" / "runs").mkdir(parents=True)
    (tmp_path / "books").mkdir()
    cells = [nbformat.v4.new_code_cell("open('started', 'w').close()\nimport time\ntime.sleep(120)")]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "books" / "20_slow.ipynb")
    built = tmp_path / "results" / "quick" / "notebooks" / "20_slow.ipynb"
    built.parent.mkdir()
    built.write_text("the older one")
    started = tmp_path / "books" / "started"  # a notebook runs in its own folder
    said = interrupt_when(lambda p: started.exists(), "build", "quick", "--notebooks", "books", folder=tmp_path)
    assert "stopped; 0 of 1 notebooks are built and kept" in said and command_to_go_on(said)[0] == "build"
    assert [path.name for path in built.parent.iterdir()] == ["20_slow.ipynb"] and built.read_text() == "the older one"
