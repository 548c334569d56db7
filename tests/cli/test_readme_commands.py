"""The README's own run as it is typed: trained, compared with another, replayed. Other tests have its other commands."""

import os
import re
import shlex
from pathlib import Path

import pytest
from command_line import asymlib

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


@pytest.mark.slow
def test_a_run_is_trained_compared_and_replayed_as_the_readme_says(cheap_results, tmp_path):
    typed = re.findall(r"^asymlib (.*?)(?: *#.*)?$", README.split("## Run your own")[1].split("```")[1], re.MULTILINE)
    run, compare, verify = (next(line for line in typed if line.startswith(word)) for word in ("run", "compare", "verify RUN"))

    def said(line: str) -> str:
        environment = os.environ | {"ASYMLIB_RESULTS": str(cheap_results)}
        done = asymlib(*shlex.split(line), folder=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run_id = re.search(r"next: asymlib compare (\w+) OTHER", said(run))[1]
    assert "60/60" in said(run.replace("asymgrpo", "grpo"))
    assert run_id in said(compare)
    assert "Reproduced: all metrics" in said(verify.replace("RUN", run_id))
