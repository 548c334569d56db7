"""Which runs are compared, and what a notebook says when there are none."""

import pandas as pd
import pytest

from asymlib import make_spec
from asymlib.analysis.selection import NothingToDraw, load_comparable, need, of_policy, policies_of
from asymlib.runs.records import run_folder
from asymlib.runs.writer import RunWriter


def test_comparable_runs_share_settings_but_not_the_group_size(finished_run, tmp_path, capsys):
    """A group size makes a variant of its own; other steps, and a collapse, leave a run out and are said."""
    for seed in (0, 1, 2):
        finished_run(seed=seed)
        finished_run(seed=seed, group_size=16)
    finished_run(seed=3, steps=7)
    finished_run(seed=4, collapse="NaN at step 2")
    found = load_comparable("quick", tmp_path)
    assert found.groupby("variant").seed.agg(sorted).to_dict() == {"grpo": [0, 1, 2], "grpo group_size=16": [0, 1, 2]}
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "left out, with other settings: 1 of 8 runs: grpo (seed 3)",
        "left out, collapsed: 1 of 8 runs: grpo (seed 4)",
    ]


def test_figures_and_claims_say_when_runs_of_one_seed_started_from_different_weights(tmp_path, capsys):
    """All notebooks that draw or judge runs load them so."""
    for method, sha256 in {"grpo": "a", "asymgrpo": "b"}.items():
        spec = make_spec(method=method, steps=1)
        writer = RunWriter(spec, run_folder(spec, tmp_path))
        writer.note(warmup={"name": "small-0-64dc2666", "sha256": sha256 * 64})
        writer.log({"step": 1, "reward": 0.5})
        writer.finish([], pd.DataFrame(columns=["step", "accuracy", "covariance"]))
    assert len(load_comparable("quick", tmp_path)) == 2
    assert capsys.readouterr().out == (
        "runs of one seed started from different weights, or do not all say from which, of the warm-ups small-0-64dc2666\n"
    )


def test_what_is_missing_is_said_in_one_sentence(finished_run, tmp_path, capsys):
    with pytest.raises(NothingToDraw, match="profile 'lab' has no finished run yet"):
        load_comparable("lab", tmp_path)
    finished_run(method="grpo"), finished_run(method="reinforce")
    runs = load_comparable("quick", tmp_path)
    assert policies_of(runs, ["grpo", "asymgrpo"]) == ["small"]
    assert capsys.readouterr().out == "small: drawn, has no runs of asymgrpo\n"
    with pytest.raises(NothingToDraw, match=r"^no finished run of pos_only, neg_only$"):
        policies_of(runs, ["pos_only", "neg_only"])
    with pytest.raises(NothingToDraw, match=r"^no finished run of asymgrpo$") as error:
        need(runs, "grpo", "asymgrpo")
    assert error.value._render_traceback_() == ["Nothing to draw: no finished run of asymgrpo"]
    assert len(of_policy(runs, "small")) == 2
    with pytest.raises(NothingToDraw, match=r"^no finished run of the policy 'base'$"):
        of_policy(runs, "base")
