"""One list of hostile texts over every boundary between asymlib and another language."""

import html.parser
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import asymlib
from rich.console import Console

from asymlib import make_spec
from asymlib.cli import batch as commands
from asymlib.interactive.fragment import fragment
from asymlib.runs.policies import canonical
from asymlib.runs.records import RunRecord, run_folder
from asymlib.runs.writer import RunWriter, record_failure
from asymlib.support.messages import MOST, say, sentence, shown
from asymlib.support.yaml12 import parse_yaml
from asymlib.verl import slurm
from asymlib.verl.setting import Setting

HOSTILE = [
    "<!--<script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;", "\u2028", "]]>",
    "${x}", r"\${x}", r"\\${x}", "${oc.env:HOME}", "x${", "it's", r"it\'s", '"', "trailing\\", "null", "1e3", "{a: b}",
    "a,b", "a=b", "$(touch owned)", "`touch owned`", "; touch owned", "a\nSPECS\ntouch owned", "line\n#SBATCH --uid=0",
    "-rf", "a b", "*", "[/pytorch/gloo/pair.cc:589] closed", "[bold]", "[/]", "\\[x]", ":smile:", "\x1b[31mred", "\r", "\0",
    "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "&a *a", "!!python/object/apply:os.system [touch owned]", "yes",
    "\u00e9 \u00df \u6f22 \U0001f600", "../../etc", "/", ".", "~", "x" * 300,
]  # fmt: skip
ESCAPES = "\x1b[2J\r"  # clears a terminal


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_page_stays_in_its_script(text):
    class Page(html.parser.HTMLParser):
        tags, data = [], ""

        def handle_starttag(self, tag, attributes):
            self.tags = [*self.tags, (tag, dict(attributes).get("type"))]

        def handle_data(self, data):
            if self.tags[-1] == ("script", "application/json") and not self.data:
                self.data = data

    page, written = Page(), fragment("explorer", {"name": text})
    page.feed(written)
    assert json.loads(page.data) == {"name": text} and "<" not in page.data
    assert [tag for tag, _ in page.tags] == ["div", "style", "script", "noscript", "script"]


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text])
def test_hydra_reads_what_was_meant(text):
    hydra = pytest.importorskip("hydra.core.override_parser.overrides_parser")
    from omegaconf import OmegaConf

    read = hydra.OverridesParser.create().parse_override(Setting("data.x", text, "a test").override).value()
    assert OmegaConf.create({"x": read}).x == text


@pytest.mark.parametrize("text", [text for text in HOSTILE if "/" not in text and text not in (".", "~") and len(text) < 200])
def test_a_slurm_script_runs_nothing_of_a_path(tmp_path, text):
    if not (tmp_path / text.replace("\0", "0")).name.isprintable() or "\0" in text:
        with pytest.raises(ValueError, match="printable characters"):
            slurm.render([make_spec(method="grpo", policy="Qwen/Qwen3-4B")], tmp_path / text.replace("\0", "\1"), tmp_path)
        return
    script = slurm.render([make_spec(method="grpo", policy="Qwen/Qwen3-4B")], tmp_path / text, tmp_path / text)
    assert not [line for line in script.splitlines() if line.startswith("#SBATCH") and text in line]
    [line] = re.findall("^export ASYMLIB_DATA=.*$", script, re.MULTILINE)
    said = subprocess.run(["bash", "-c", f'{line}; printf %s "$ASYMLIB_DATA"'], cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout == str((tmp_path / text).resolve()) and not (tmp_path / "owned").exists()
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@pytest.mark.parametrize("text", ["x\n#SBATCH --uid=0", "a b", "x%j/../y", ""])
def test_a_slurm_job_s_name_is_a_name(tmp_path, text):
    with pytest.raises(ValueError, match="a job's name must be of letters"):
        slurm.render([make_spec(method="grpo", policy="Qwen/Qwen3-4B")], tmp_path, tmp_path, name=text)


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_builds_nothing_and_reads_json_back(text):
    written = json.dumps({"x": text}, ensure_ascii=max(map(ord, text)) < 2**16)  # YAML knows no surrogate pairs
    assert parse_yaml(written) == {"x": text} == yaml.safe_load(written)
    try:
        assert isinstance(parse_yaml(text), str | int | float | dict | list | None)
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_sentence_is_one_line_without_control_characters(text):
    assert sentence(text).isprintable() and len(sentence(text * 3)) <= MOST
    assert len(shown(text)) <= 60


@pytest.mark.parametrize("text", HOSTILE)
def test_a_failed_run_s_message_stops_neither_batch_nor_status(tmp_path, monkeypatch, capsys, text):
    spec = make_spec(method="grpo", steps=2)
    writer = RunWriter(spec, run_folder(spec, tmp_path))
    record_failure(writer.folder, RuntimeError(text))
    assert text in json.loads((writer.folder / "failed.json").read_text())["error"]
    with commands._BatchBar("m.yaml", [spec], tmp_path) as bar:
        bar.report(spec, "failed", text)
    (tmp_path / "m.yaml").write_text("axes: {method: [grpo], steps: [2]}\n")
    monkeypatch.setattr(commands, "load_matrix", lambda path: [spec.model_copy(update={"policy": text})])
    commands.status(tmp_path / "m.yaml", tmp_path)
    said = capsys.readouterr().out
    if text.isprintable() and len(text) < 20 and text.strip() == text:
        assert said.count(text) >= 2
    assert isinstance(commands.console, Console)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in (".", "/")])
def test_no_hostile_text_is_a_policy_or_leaves_the_results_folder(tmp_path, monkeypatch, text):
    monkeypatch.setenv("ASYMLIB_RESULTS", str(tmp_path / "results"))
    with pytest.raises(ValueError, match="policy="):
        canonical(text, ("small",))
    for field in ("profile", "method", "task"):
        with pytest.raises(ValueError):
            make_spec(**{"method": "grpo", field: text})


def test_a_folder_of_any_name_holds_records(tmp_path):
    for text in (
        text for text in HOSTILE if "/" not in text and "\0" not in text and len(text) < 200 and text not in (".", "~")
    ):
        spec = make_spec(method="grpo", steps=2)
        writer = RunWriter(spec, run_folder(spec, tmp_path / text))
        writer.log({"step": 1, "reward": 0.5})
        assert len(RunRecord(Path(writer.folder)).metrics) == 1


def test_control_characters_of_a_folder_reach_no_terminal(tmp_path):
    """In the results folder's own name, a record's and a warm-up's."""
    root = tmp_path / f"{ESCAPES}results"
    spec = make_spec(method="grpo", steps=2, profile="quick")
    RunWriter(spec, run_folder(spec, root))
    (root / "quick" / "runs" / f"{ESCAPES}run").mkdir()
    (root / "warmup").mkdir()
    (root / "warmup" / f"{ESCAPES}.json").write_text("{}")
    for command in (["doctor", "--records"], ["doctor", "--records", "--set-aside"], ["compare", "grpo", "asymgrpo"]):
        done = asymlib(*command, "--results", root, folder=tmp_path)
        said = done.stdout + done.stderr
        assert said and "\x1b" not in said
        assert command[0] == "compare" or r"\x1b[2J\r" in said


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_said_is_printable_and_loses_nothing(text, capsys):
    say(Path("folder") / text.replace("\0", "\1"))
    said = capsys.readouterr().out.removesuffix("\n")
    assert said.replace("\n", "").isprintable()
    assert text.isprintable() <= (said == str(Path("folder") / text))
