"""The command line as a user types it: each command in a process of its own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pexpect
import pytest
from command_line import asymlib
from typer.main import get_command
from typer.testing import CliRunner

from asymlib import RunRecord, make_spec
from asymlib.cli.main import NEXT_STEPS, app, main
from asymlib.lab.warmup import WarmUp
from asymlib.methods import CATALOGUE
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import run_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "asymgrp"], "unknown method 'asymgrp': did you mean 'asymgrpo'"),
        (["run", "grpo", "--set", "beat_pos=0.9"], "unknown parameter 'beat_pos': did you mean 'beta_pos'"),
        (["run", "grpo", "--set", "beta_pos=lots"], "beta_pos='lots'"),
        (["run", "grpo", "--set", "beta_pos"], "must read NAME=VALUE"),
        (["run", "grpo", "--seed", "one"], "seed='one'"),
        (["run", "grpo", "--seed", "-1"], "seed='-1'"),
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
        (["run", "grpo", "--steps", "0"], "steps='0': input should be greater than or equal to 1"),
        (["run", "grpo", "--steps"], "--steps"),
        (["run", "grpo", "asymgrpo"], "asymgrpo"),
        (["run", "grpo", "--set", "group_size=1.5"], "group_size=1.5"),
        (["run", "grpo", "--set", "beta_pos=["], "'beta_pos=[': the value is not YAML"),
        (["run", "grpo", "--set", "prompts_per_minibatch=5"], "prompts_per_minibatch=5: must divide prompts_per_step=32"),
        (["run", "ent_decrease", "--set", "group_size=2"], "group_size=2"),
        (["run", "--spec", "specs.yaml"], "specs.yaml: No such file or directory; did you mean 'spec.yaml'?"),
        (["run", "grpo", "--results", "spec.yaml"], "--results='spec.yaml': is no folder"),
        (["run", "grpo", "--results", "spec.yaml/below"], "--results='spec.yaml/below': is no folder"),
        (["status", "wrong.yml"], "wrong.yml: No such file or directory; did you mean 'wrong.yaml'?"),
        (["batch", "spec.yaml", "--jobs", "0"], "--jobs"),
        (["batch", "good.yaml", "--notebook", "train.ipynb"], "--notebook train.ipynb: no such file"),
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
    """The asymlib commands in a text: lines that start with one, up to a comment or two spaces; a backslash goes on below."""
    return re.findall(r"^ *(asymlib (?:[^ #\n]| (?! |#))+)", re.sub(r" *\\\n *", " ", text), re.MULTILINE)


def test_no_argument_says_what_to_do_next(tmp_path):
    result = asymlib(folder=tmp_path)
    assert result.returncode == 0
    assert {command.split()[1] for command in shown_commands(result.stdout)} > {"run", "batch", "build", "status", "compare"}


@pytest.mark.parametrize(("group", "commands"), [("verl", ("rehearse", "config", "launch")), ("data", ("prepare",))])
def test_a_group_alone_lists_its_commands(tmp_path, group, commands):
    done = asymlib(group, folder=tmp_path)
    assert [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines()] == [*commands]
    assert done.returncode == 2 and done.stderr == ""


def test_version_and_methods(tmp_path):
    assert asymlib("--version", folder=tmp_path).stdout == f"asymlib {metadata.version('asymlib')}\n"
    listed = CliRunner().invoke(app, ["methods"]).stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == list(CATALOGUE)
    assert re.search(r"asymgrpo +AsymGRPO +0.9 +0.4 +- +arXiv 2604.04894 Eq. 10", listed)
    # betas of 0 would read as REINFORCE, and those of a flip as GRPO
    assert re.search(r"psr +PSR +- +- +constant weight_neg=0.0 +arXiv", listed)
    assert re.search(r"nsr +NSR +- +- +constant weight_pos=0.0 +arXiv", listed)
    assert re.search(r"w_reinforce +W-REINFORCE +- +- +constant weight_pos=0.1 +arXiv", listed)
    assert re.search(r"ent_increase +EntIncrease +- +- +flipped_negative beta_pos=0.5 beta_neg=0.5 +arXiv", listed)


def test_status_without_a_matrix_says_what_there_is(tmp_path, finished_run):
    finished_run(seed=3)
    (tmp_path / "quick" / "runs" / "cut-off").mkdir()
    said = CliRunner().invoke(app, ["status", "--results", str(tmp_path)]).stdout
    assert re.search(r"quick +2 +1 *\n", said) and "asymlib status " in said


def test_every_option_has_a_help_text():
    def commands(group, name=()):
        for word, command in group.commands.items():
            yield from commands(command, (*name, word)) if hasattr(command, "commands") else [((*name, word), command)]

    silent = [(*name, p.name) for name, c in commands(get_command(app)) for p in c.params if not getattr(p, "help", None)]
    assert not [entry for entry in silent if entry[-1] not in ("help",)]


PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
DOCUMENTS = (NEXT_STEPS, *(page.read_text() for page in PAGES))
READING = ("compare", "status", "methods", "verl config")  # these change nothing: they are run as typed
INVENTED = "mirrored"  # the method that docs/add-a-method.md adds, which tests/site/test_add_a_method.py runs


@pytest.mark.parametrize("command", sorted({c for text in DOCUMENTS for c in shown_commands(text)}))
def test_every_command_that_is_shown_exists_with_its_options_and_files(command):
    _, *arguments = shlex.split(command)
    if arguments != ["--install-completion"]:
        result = CliRunner().invoke(app, [*arguments, "--help"])
        assert result.exit_code == 0, result.output
    for argument in arguments:
        assert not argument.startswith("notebooks/") or (ROOT / argument).exists()
    if arguments[0] == "run" and "--spec" not in arguments:
        assert arguments[1] in {*CATALOGUE, INVENTED, "--help"}


@pytest.mark.parametrize(
    "command", sorted({c for text in DOCUMENTS for c in shown_commands(text) if c.removeprefix("asymlib ").startswith(READING)})
)
def test_every_command_that_only_reads_does_so_on_the_committed_records(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0 and len(result.stdout.splitlines()) > 3, result.output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("asymlib ru", ["run"]),
        ("asymlib run gr", ["grpo", "grpo_entropy_reg", "grpo_clip_higher", "grpo_entropy_adv", "grpo_sample_std"]),
        ("asymlib run grpo --policy b", ["base"]),
        ("asymlib run grpo --profile q", ["quick"]),
        ("asymlib run grpo --set beta_", ["beta_pos=", "beta_neg=", "beta_schedule="]),
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
    program = "import sys; sys.argv = ['asymlib']; from asymlib.cli.main import main; main()"
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


@pytest.mark.slow
def test_one_failed_run_does_not_stop_the_others_and_the_exit_status_says_so(tmp_path, cheap_results):
    (tmp_path / "m.yaml").write_text(
        "defaults: {profile: quick, steps: 2, prompts_per_step: 8, prompts_per_minibatch: 4}\n"
        "axes: {method: [asymgrpo_clip_higher], warmup_seed: [0, 99]}\n"  # its line style is a pattern, not a word
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
