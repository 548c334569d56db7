"""Wrong input: one sentence of at most 200 characters that names field and value, exit status 2, and nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import asymlib as asymlib_command
from hypothesis import given
from hypothesis import strategies as st

from asymlib import (
    METHODS,
    covariance_by_accuracy,
    flipped_negative,
    flipped_positive,
    get_method,
    group_advantages,
    group_covariance,
    length_normalized_log_prob,
    load_runs,
    make_spec,
    negative_advantage,
    positive_advantage,
    run_experiment,
    run_in_subprocess,
)  # fmt: skip
from asymlib.cli.main import main
from asymlib.evaluation.evaluate import check_request
from asymlib.runs.matrix import load_matrix
from asymlib.support.messages import MOST, sentence
from asymlib.verl.setting import Machine

ROOT = Path(__file__).resolve().parents[2]
PAPER = ["verl", "config", "grpo", "--policy", "Qwen/Qwen3-4B"]


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """call(*arguments) -> exit status and what it said, in an empty folder that stays empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASYMLIB_RESULTS", raising=False)

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["asymlib", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert sorted(tmp_path.rglob("*")) == before
        return ended.value.code, capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "grpo", "--steps", f"{10**24}"], "steps='1000000000000000000000000': "),
        (["run", "grpo", "--seed", f"{2**70}"], "seed='1180591620717411303424': "),
        (["run", "grpo", "--set", "learning_rate=1e300"], "learning_rate=1e+300: "),
        (["run", "grpo", "--set", "beta_pos=1e308"], "beta_pos=1e+308: "),
        (["run", "grpo_entropy_adv", "--set", "entropy_advantage=[0.4, 0]"], "entropy_advantage.1=0: "),
        (["run", "grpo_entropy_adv", "--set", "entropy_advantage=[-1, 2]"], "entropy_advantage.0=-1: "),
        (["run", "grpo", "--device", "meta"], "--device"),
        (["run", "grpo", "--results", ""], "--results='': must name a folder"),
        (["run", "grpo", "--results", "a" * 300], "longer than 255 bytes"),
        (["run", "grpo", "--results", "loop"], "--results='loop': is no folder"),
        (["run", "grpo", "--profile", "x" * 5000], "profile='xxx"),
        *[(["run", "grpo", "--policy", text], f"policy={text!r}: ") for text in ("./nope", "", "/", "a/b/c/d", "org/na me")],
        *[(["run", "grpo", "--set", f"group_size={10**n}"], f"group_size={10**n}: ") for n in (9, 15)],
        (["run", "grpo", "--steps", "abc"], "steps='abc': "),
        (["run", "grpo", "--seed", "1.5"], "seed='1.5': "),
        (["batch", "m.yaml", "--jobs", "0"], "--jobs='0': "),
        ([*PAPER, "--nodes", "abc"], "--nodes='abc': "),
        ([*PAPER, "--nodes=0"], "--nodes='0': "),
        (["run", "grpo", "--set", "method_changes={1: 2}"], "unknown method setting 1: "),
        (["run", "grpo", "--set", "method={name: x}"], "method={'name': 'x'}: "),
        (["run", "grpo", "--set", "beta_pos=true"], "beta_pos=True: must not be true or false"),
        (["export", "small", "/proc/x"], "folder='/proc/x': cannot be made: "),
        (["export", "small", "out", "--warmup-seed", str(10**22)], f"warmup_seed={10**22}: must be from 0 to 4294967295"),
        (["doctor", "--records", "--results", "nosuch"], "results='nosuch': no such folder"),
        (["evaluate", "ckpt"], "checkpoint='ckpt': must be a folder or a Hugging Face id"),
        (["doctor", "--set-aside"], "--set-aside needs --records"),
        *[(["evaluate", "ckpt", f"--{name}", ""], f"--{name}='': must name a folder") for name in ("data", "output")],
        *[(["data", "prepare", f"--{name}", ""], f"--{name}='': must name a folder") for name in ("folder", "from")],
        (["build", "quick", "--notebooks", ""], "--notebooks='': must name a folder"),
        (["tensorboard", "grpo", "--to", ""], "--to='': must name a folder"),
        *[
            (["evaluate", "c", "--benchmarks", t], f"--benchmarks={t!r}: must name at least one of math-500, ")
            for t in ("", ",")
        ],
        *[([*PAPER, "--override", f"{t}=1"], f"--override {t!r}: must be a name of") for t in ("x y", "x\ny", "~x", "")],
        (["run", "grpo", "--seed", "1_000"], "seed='1_000': must be a number, written such as 1000"),
        (["run", "grpo", "--steps", "0777"], "steps='0777': must be a number, written such as 1000"),
        (["run", "grpo", "--set", "beta_pos=1_0"], "beta_pos='1_0': must be a number, written such as"),
        (["run", "grpo", "--set", "prompts_per_step=200000"], "prompts_per_step=200000: times group_size=8, at most 1048576"),
    ],
)
def test_a_command_refuses_it(call, tmp_path, arguments, said):
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "m.yaml").write_text("axes: {method: [grpo]}\n")
    status, line = call(*arguments)
    assert status == 2 and said in line and line.count("\n") == 1 and len(line) <= MOST + len("asymlib: \n")


@pytest.mark.parametrize(("variable", "command"), [("RESULTS", ["status"]), ("DATA", ["data", "prepare"]), ("DATA", PAPER)])
@pytest.mark.parametrize("value", ["", "loop", "file"])
def test_a_variable_that_names_no_folder(call, tmp_path, monkeypatch, variable, command, value):
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "file").touch()
    monkeypatch.setenv(f"ASYMLIB_{variable}", value)
    status, line = call(*command)
    assert status == 2 and line.startswith(f"asymlib: ASYMLIB_{variable}={value!r}: ")


@pytest.mark.parametrize("value", ["3", "abc", "", '"a=1"', '{"a": 1}', "[1]", "[" * 100_000])
def test_a_variable_of_overrides_that_is_no_list_of_texts(monkeypatch, value):
    monkeypatch.setenv("ASYMLIB_OVERRIDES", value)
    with pytest.raises(ValueError, match=r"^ASYMLIB_OVERRIDES='.*: must be a JSON list of texts, such as"):
        Machine.of_environment()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axes: " + "[" * 3000, "nested too deeply"),
        ("axes: {method: [" + "[" * 200 + "]" * 200 + "]}", "method=[[[...]]]: "),
        ("axes: {method: [{name: x}]}", "unknown parameter 'name'"),
        ("axes: {method: [grpo]}\ndefaults: {method_changes: {1: 2}}", "unknown method setting 1"),
        ("axes: {method: [grpo], steps: [true]}", "steps=True: must not be true or false"),
        ("axes: {method: [grpo], seed: [1, 1]}", "written twice: {'method': 'grpo', 'seed': 1} is the run of other entries"),
        ("axes: {method: [grpo, {method: grpo}]}", "written twice: "),
        ("axes: {method: [grpo], seed: [1, 2]}\nexceptions: [{when: {seed: 2}, set: {seed: 1}}]", "written twice: "),
        *[
            (f"axes: {{method: [grpo], seed: [1, 2]}}\nexceptions: [{{when: {{seed: 2}}, skip: {text}}}]", "exceptions.0.skip=")
            for text in ("yes", "1", "'true'")
        ],
        (
            "axes: {method: [grpo], seed: [1, 2]}\nexceptions: [{when: {seed: 2}, skip: true, set: {steps: 3}}]",
            "exceptions.0: must either skip (true) or set something",
        ),
        ("axes: {method: [grpo], seed: [1_000]}", "seed='1_000': must be a number"),
        (f"axes: {{method: [grpo], seed: {list(range(300_000))}}}", "more than 100000 characters"),
        (
            f"axes: {{method: [grpo], seed: {[*range(1000)]}, steps: {[*range(1000)]}, group_size: {[*range(1000)]}}}",
            "10000000",
        ),
        ("defaults: {a: &a [x, x, x, x], b: &b [*a, *a, *a], c: [*b, *b, *b]}\naxes: {method: [grpo]}", "alias *a"),
    ],
)
def test_a_matrix_refuses_it(tmp_path, text, said):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_matrix(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)


def test_a_device_without_end_is_not_read_to_its_end():
    with pytest.raises(ValueError, match="more than 100000 characters"):
        load_matrix("/dev/zero")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from([*type(make_spec(method="grpo")).model_fields, "beta_pos", "entropy_advantage"]), ANYTHING)
def test_any_value_is_taken_or_refused_in_one_sentence(field, value):
    try:
        spec = make_spec(**{"method": "grpo", field: value})
    except ValueError as error:
        assert 0 < len(sentence(error)) <= MOST
    else:
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("call_it", "error", "said"),
    [
        (lambda: group_advantages([1, 0], [float("nan")] * 2, METHODS["grpo"]), ValueError, r"groups\[0\]=nan"),
        (lambda: group_advantages([1, 0], [0, 0], "grpo"), TypeError, "method='grpo': must be a Method"),
        (lambda: covariance_by_accuracy([-1, -2], [1, -1], [0.5, 7], [0, 0]), ValueError, r"rewards\[0\]=0.5"),
        (lambda: covariance_by_accuracy([-1, -2], [1, -1], [1, float("nan")], [0, 0]), ValueError, r"rewards\[1\]=nan"),
        (lambda: length_normalized_log_prob([[-1.0]], [[0]]), ValueError, r"mask\[0\] has no token"),
        (lambda: length_normalized_log_prob([[-1.0]], [[2]]), ValueError, "mask has the entry 2: every entry must be 0 or 1"),
        (lambda: length_normalized_log_prob([-1.0], [1]), ValueError, r"log_probs has shape \(1,\), mask \(1,\): both must be"),
        *[
            (lambda x=x: covariance_by_accuracy([-1, x], [1, -1], [1, 0], [0, 0]), ValueError, rf"log_probs\[1\]={x}: every")
            for x in (float("nan"), -float("inf"))
        ],
        (
            lambda: group_covariance([-1, -2], [np.inf, -1], [0, 0]),
            ValueError,
            r"advantages\[0\]=inf: every number must be finite",
        ),
        (lambda: positive_advantage(0.5, True), ValueError, "beta=True: must be a finite number >= 0 and <= 100"),
        (lambda: negative_advantage(0.5, 101), ValueError, "beta=101: must be a finite number >= 0 and <= 100"),
        (lambda: check_request(["math-500"], 1, None, 1, "out", seed=-1), ValueError, "seed=-1: must be a whole number of at"),
        (lambda: check_request(["math-500"], 1, None, 1, "out", dtype="float23"), ValueError, "unknown dtype 'float23'"),
        (lambda: load_runs("nosuch"), ValueError, "folder='nosuch': no such folder"),
        (lambda: load_runs(""), ValueError, "folder='': must name a folder"),
        (lambda: load_runs(3), TypeError, "folder=3: must be the path of a folder"),
        (lambda: positive_advantage("a", 0.5), TypeError, "p='a': must be a number"),
        (lambda: positive_advantage([[0.5], [0.5, 1]], 0.5), TypeError, r"p=\[\[0.5\], \[0.5, 1\]\]: must be a number"),
        (lambda: negative_advantage(0.5, "a"), ValueError, "beta='a': must be a finite number >= 0"),
        (lambda: negative_advantage(0.5, 10**400), ValueError, r"beta=1000\d+\.\.\.0+: must be a finite number >= 0"),
        (lambda: flipped_positive(0.5, "8"), ValueError, "group_size='8': a flipped curve needs a whole number >= 3"),
        (lambda: flipped_negative(0.5, 10**400), ValueError, "group_size=1000.*: a flipped curve needs .* <= 1000000"),
        (lambda: METHODS["grpo"].table(10**9), ValueError, "group_size=1000000000: must be a whole number"),
        (lambda: group_advantages([1, 0], None, METHODS["grpo"]), TypeError, "groups=None: must be a list"),
        (lambda: group_advantages([1, 0], [[], []], METHODS["grpo"]), TypeError, r"groups=\[\[\], \[\]\]: must be a list"),
        (lambda: group_advantages("ab", [0, 0], METHODS["grpo"]), ValueError, r"rewards has shape \(\)"),
        (lambda: group_covariance(3, [1, -1], [0, 0]), ValueError, r"shapes differ: log_probs \(\)"),
        (lambda: group_covariance([-1, -2], "ab", [0, 0]), TypeError, "advantages='ab': must be a number, or a list"),
        (lambda: length_normalized_log_prob([["x"]], [[1]]), TypeError, r"log_probs=\[\['x'\]\]: must be a number"),
        (lambda: length_normalized_log_prob([[-1.0]], [[None]]), TypeError, r"mask=\[\[None\]\]: must be a number"),
        (lambda: run_experiment("grpo"), TypeError, "spec='grpo': must be an ExperimentSpec, such as make_spec"),
        (lambda: run_in_subprocess({"method": "grpo"}), TypeError, r"spec=\{'method': 'grpo'\}: must be an ExperimentSpec"),
        (lambda: run_experiment(make_spec(method="grpo"), 3), TypeError, "results=3: must be the path of a folder"),
        (lambda: run_experiment(make_spec(method="grpo"), ""), ValueError, "results='': must name a folder"),
        (lambda: get_method(3), ValueError, "unknown method 3"),
        (lambda: make_spec(method=["grpo"]), ValueError, r"method=\['grpo'\]: "),
    ],
)
def test_the_python_api_names_the_argument(tmp_path, monkeypatch, call_it, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said) as raised:
        call_it()
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_lists_are_taken_where_arrays_are():
    assert length_normalized_log_prob([[-1.0, -2.0, 9.0]], [[1, 1, 0]]).tolist() == [-1.5]
    assert group_advantages([1, 0], [0, 0], METHODS["grpo"]).tolist() == [1, -1]
    assert covariance_by_accuracy([-1, -2], [1, -1], [1, 0], [0, 0])["covariance"].tolist() == [0.5]
    assert np.isclose(length_normalized_log_prob(np.array([[-1.0]]), np.array([[True]])), -1)


BY_HAND = ["01_advantage_curves", "02_entropy_and_covariance", "32_table1_resolution"]
WRONG = [
    *[(name, ["-p", "profile", "nosuch"], "profile 'nosuch'") for name in BY_HAND],
    *[(name, ["-p", "results", "file"], "results='file': is no folder") for name in BY_HAND],
    *[(name, ["-p", "results", "missing"], "results='missing': no such folder") for name in BY_HAND],
    ("10_train", ["-p", "settings", "{group_size: 16}"], "settings='{group_size: 16}': must be a mapping"),
    ("10_train", ["-y", "settings: {group_sise: 16}"], "unknown parameter 'group_sise': did you mean 'group_size'?"),
    ("10_train", ["-p", "method_changes", "beta_pos"], "method_changes='beta_pos': must be a mapping"),
    ("11_evaluate", ["-p", "samples", "0"], "samples=0: must be a whole number of at least 1"),
    ("11_evaluate", ["-p", "samples", "abc"], "samples='abc': must be a whole number"),
    ("11_evaluate", ["-p", "benchmarks", "walk-3"], "benchmarks='walk-3': must be a list of names"),
    ("11_evaluate", ["-y", "benchmarks: [walk-33]"], "unknown benchmark 'walk-33': did you mean 'walk-3'"),
    ("11_evaluate", ["-p", "engine", "vlm"], "unknown engine 'vlm': did you mean 'vllm'?"),
    ("11_evaluate", ["-p", "response_tokens", "0"], "response_tokens=0: must be a whole number"),
    ("11_evaluate", ["-p", "output", "file"], "output='file': is no folder"),
    ("11_evaluate", ["-p", "data", "missing"], "missing/walk-mix.parquet does not exist"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "said"), WRONG)
def test_a_notebook_names_parameter_and_value_and_writes_nothing(tmp_path, name, arguments, said):
    """As a user types it. A warm-up would be something written."""
    (tmp_path / "file").touch()
    (tmp_path / "results").mkdir()
    source = ROOT / "notebooks" / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), "out.ipynb", *arguments, "--no-progress-bar"]
    environment = os.environ | {"ASYMLIB_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and said in done.stderr.strip().splitlines()[-1], done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out.ipynb", "results"]
    assert not list((tmp_path / "results").iterdir()) and asymlib_command("status", folder=tmp_path).returncode == 0
