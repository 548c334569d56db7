"""Comparisons on records made by hand: every number below can be checked on paper."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from asymlib import make_spec
from asymlib.analysis.compare import compare, find_pair, find_runs, measure_by_problem
from asymlib.cli.main import app
from asymlib.runs import writer as records
from asymlib.runs.records import RunRecord, run_folder
from asymlib.runs.writer import RunWriter

REWARDS = [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.fixture
def record(tmp_path, monkeypatch):
    """record(method, seed, correct=..., rewards=...): a finished run of the lab profile below tmp_path."""
    code = {"commit": "a" * 40, "dirty": False, "diff_sha256": None}
    monkeypatch.setattr(records, "collect_provenance", lambda: code)

    def make(
        method="grpo", seed=0, correct=(0, 5, 10), rewards=REWARDS, samples=10, collapse=None, done=True, notes=None, **fields
    ):
        spec = make_spec(**{"method": method, "seed": seed, "steps": len(rewards), "profile": "lab"} | fields)
        writer = RunWriter(spec, run_folder(spec, tmp_path))
        writer.note(**notes or {})
        for step, reward in enumerate(rewards, start=1):
            writer.log({"step": step, "reward": reward, "entropy": 1.0, "val_acc": 0.5 if step == 5 else None})
        place = {"benchmark": "walk-far", "step": 5, "samples": samples, "correct": list(correct)}
        evaluation = [place | {"checkpoint": "last", "temperature": 1.0}, place | {"checkpoint": "best", "temperature": 0.4}]
        if done:
            writer.finish(evaluation, pd.DataFrame({"step": [1], "accuracy": [0.5], "covariance": [0.1]}), collapse)
        return RunRecord(writer.folder)

    return make


def row(comparison, measure):
    return comparison.measures.set_index("measure").loc[measure]


def test_measures_of_one_run(record):
    found = {name: values.tolist() for name, values in measure_by_problem(record(correct=[0, 1, 16], samples=16)).items()}
    assert found["reward, mean of the run"] == [pytest.approx(0.2)] and found["reward, last fifth"] == [0.4]
    assert found["val_acc, last fifth"] == [0.5]  # NaN where nothing was validated
    assert found["Avg@k, mean of 1 sets"] == [pytest.approx(17 / 48)]
    assert found["Avg@16 walk-far (best, T=0.4)"] == [0, 1 / 16, 1]
    assert found["pass@16 walk-far (last, T=1)"] == [0, 1, 1]


def test_a_profile_of_another_task_is_compared_by_its_name_alone(record, tmp_path):
    walk, numbers = record(), record(profile="countdown", task="countdown")
    assert [list(find_runs("grpo", tmp_path)), list(find_runs("grpo", tmp_path, profile="countdown"))] == [
        ["lab"],
        ["countdown"],
    ]
    [found] = find_runs("grpo task=countdown", tmp_path)["countdown"]
    assert found.folder == numbers.folder != walk.folder


def test_two_runs_are_paired_over_problems(record):
    a, b = record("asymgrpo", correct=[4, 6, 10]), record("grpo", correct=[2, 6, 7])
    found = compare([a], [b])
    differences = np.array([0.2, 0.0, 0.3])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    of_set = row(found, "Avg@10 walk-far (best, T=0.4)")
    assert found.paired_over == "problems" and of_set.n == 3 and (of_set.a, of_set.b) == pytest.approx((20 / 30, 15 / 30))
    assert (of_set.low, of_set.difference, of_set.high) == pytest.approx((0.5 / 3 - half, 0.5 / 3, 0.5 / 3 + half))
    curve = row(found, "reward, mean of the run")
    assert curve.difference == 0 and np.isnan(curve.low) and np.isnan(curve.high)  # one run says nothing about its spread


def test_two_variants_are_paired_over_the_seeds_that_both_have(record, tmp_path):
    for seed, (a, b) in enumerate([(0.5, 0.1), (0.5, 0.2), (0.5, 0.3)]):
        record("pos_only", seed, rewards=[a] * 5)
        record("reinforce", seed, rewards=[b] * 5)
    record("pos_only", 7, rewards=[0.9] * 5)
    pos_only, reinforce, _ = find_pair("pos_only", "reinforce", tmp_path)
    found = compare(pos_only, reinforce)
    of_reward = row(found, "reward, mean of the run")
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert found.paired_over == "seeds" and of_reward.n == 3 and of_reward.a == 0.5
    assert (of_reward.low, of_reward.difference, of_reward.high) == pytest.approx((0.3 - half, 0.3, 0.3 + half))
    assert found.notes == ["left out, only one of the two has them: seeds 7"]


def test_spec_differences_name_the_methods_settings_too(record):
    found = compare([record("grpo", beta_pos=0.9)], [record("asymgrpo", seed=3)])
    differences = {field: (a, b) for field, a, b in found.specs.itertuples(index=False)}
    assert differences == {"method": ("grpo", "asymgrpo"), "seed": (0, 3), "beta_neg": (0.5, 0.4)}


def test_the_same_run_does_not_differ_from_itself(record):
    run = record()
    found = compare([run], [run])
    assert found.specs.empty and (found.measures["difference"] == 0).all() and found.notes == []


def test_runs_of_different_code_are_said_to_be(record, monkeypatch):
    old = record("grpo")
    monkeypatch.setattr(records, "collect_provenance", lambda: {"commit": "b" * 40, "dirty": True, "diff_sha256": "c"})
    assert compare([old], [record("asymgrpo")]).notes == ["made by different code: aaaaaaaaaaaa, bbbbbbbbbbbb with changes"]


def test_runs_of_one_seed_from_different_weights_are_said_to_be(record):
    runs = {}
    for method, sha256 in {"grpo": "a", "asymgrpo": "a", "reinforce": "b"}.items():
        runs[method] = record(method, notes={"warmup": {"name": "small-0-64dc2666", "sha256": sha256 * 64}})
    assert compare([runs["asymgrpo"]], [runs["grpo"]]).notes == []
    said = "runs of one seed started from different weights, or do not all say from which, of the warm-ups small-0-64dc2666"
    assert compare([runs["reinforce"]], [runs["grpo"]]).notes == [said]
    assert compare([record("dr_grpo")], [runs["grpo"]]).notes == [said]


def test_a_run_is_found_by_id_prefix_folder_and_variant(record, tmp_path):
    wanted, _ = record("reinforce", seed=1, beta_neg=0.75), record("reinforce", seed=1)
    name = wanted.folder.name
    for text in (name, name[:6], str(wanted.folder), "reinforce beta_neg=0.75", "reinforce beta_neg=0.75 seed=1"):
        assert [found.folder for found in find_runs(text, tmp_path)["lab"]] == [wanted.folder]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grop", "no run or method 'grop' below {}: did you mean 'grpo'"),
        ("zzz", "no run or method 'zzz' below {}: give a run id, a run's folder or a variant such as grpo"),
        ("", "no run or method '' below {}: give"),
        ("{near}", "no run or method '{near}' below {}: did you mean '{id}'?"),
        ("grpo seed", "'seed': must read NAME=VALUE, such as beta_pos=0.9"),
        ("grpo beat_pos=1", "unknown parameter 'beat_pos': did you mean 'beta_pos'"),
        ("grpo beta_pos=[", "'beta_pos=[': the value is not YAML"),
        ("grpo beta_pos=0.9", "grpo beta_pos=0.9: no finished run in {}/lab/runs"),
        ("dr_grpo group_size=8", "dr_grpo group_size=8: no finished run in {}/lab/runs"),
        ("pos_only", "(pos_only) collapsed: NaN at step 3; nothing to compare"),
        (
            "{unfinished}",
            "is not finished (no done.json): asymlib run --spec {}/lab/runs/{unfinished}/spec.json goes on with it",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(record, tmp_path, text, said):
    names = {"id": record().folder.name, "unfinished": record("asymgrpo", done=False).folder.name}
    names["near"] = names["id"][:-1] + ("0" if names["id"][-1] != "0" else "1")
    record("pos_only", collapse="NaN at step 3")
    record("dr_grpo", group_size=4)
    with pytest.raises(ValueError) as error:
        find_runs(text.format(**names), tmp_path, profile="lab")
    assert said.format(tmp_path, **names) in str(error.value) and "\n" not in str(error.value)


def test_defaults_are_the_small_policy_groups_of_eight_and_all_seeds(record, tmp_path):
    """A warm-up seed is part of the seed, and a run with other settings is no reason to refuse the rest."""
    for method in ("grpo", "asymgrpo"):
        for seed, warmup_seed in ((0, 0), (1, 1), (2, 1)):
            record(method, seed, warmup_seed=warmup_seed)
        record(method, 3, policy="base"), record(method, 4, group_size=16), record(method, 5, learning_rate=1e-3)
    a, b, looked = find_pair("grpo", "asymgrpo", tmp_path)
    found = compare(a, b)
    assert found.measures.n.unique().tolist() == [3] and "warmup_seed" not in set(found.specs.field)
    assert looked[0] == f"grpo: 3 of {tmp_path}/lab/runs"
    with pytest.raises(ValueError, match=r"dr_grpo: no finished run of policy 'small' and groups of 8 in .*/\*/runs, of the"):
        record("dr_grpo", policy="base") and find_runs("dr_grpo", tmp_path)
    same_number = [record(method, 6, warmup_seed=warmup) for method, warmup in (("grpo", 1), ("asymgrpo", 2))]
    with pytest.raises(ValueError, match="share no seed"):  # another checkpoint is another seed
        compare([a[0], same_number[0]], [same_number[1]])


def test_a_named_profile_says_which_policy_is_meant(record, tmp_path):
    for method in ("grpo", "asymgrpo"):
        for seed in (0, 1):
            record(method, seed, policy="base", profile="scale")
    a, b, _ = find_pair("grpo", "asymgrpo", tmp_path, profile="scale")
    assert {r.spec.policy for r in (*a, *b)} == {"base"} and compare(a, b).measures.n.unique().tolist() == [2]


def test_an_own_run_is_found_and_said_where(record, tmp_path):
    for method in ("grpo", "asymgrpo"):
        record(method, 100)
        record(method, 0, profile="quick")
    record("grpo", 0, profile="quick", beta_pos=0.3)
    lab, _, looked = find_pair("grpo", "asymgrpo", tmp_path)
    assert [r.spec.profile for r in lab] == ["lab"]
    assert looked[0] == f"grpo: 1 of {tmp_path}/lab/runs; also there: quick (1), by --profile"
    own, other, looked = find_pair("grpo beta_pos=0.3", "asymgrpo", tmp_path)  # both from the profile that has both
    assert [r.spec.profile for r in (*own, *other)] == ["quick", "quick"] and len(compare(own, other).measures)
    assert looked[0] == f"grpo beta_pos=0.3: 1 of {tmp_path}/quick/runs"


def test_a_variant_with_the_entropy_advantage_is_named_in_one_word(record, tmp_path):
    wanted = record("grpo", entropy_advantage=(0.2, 2))
    assert wanted.spec.variant == "grpo entropy_advantage=[0.2,2.0]"
    assert [found.folder for found in find_runs(wanted.spec.variant, tmp_path)["lab"]] == [wanted.folder]


def test_a_stray_copy_does_not_hide_the_record_and_a_long_name_is_no_run(record, tmp_path):
    one = record("grpo")
    shutil.copytree(one.folder, tmp_path / "quick" / "runs" / one.folder.name)
    assert [found.folder for found in find_runs(one.folder.name, tmp_path)["lab"]] == [one.folder]
    with pytest.raises(ValueError, match="no run or method 'xxx"):
        find_runs("x" * 300, tmp_path)


def test_an_ambiguous_start_is_refused(record, tmp_path):
    ids = [record(seed=seed).folder.name for seed in range(17)]  # more than there are hex digits
    start = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)
    with pytest.raises(ValueError, match=f"'{start}' is the start of . run ids: "):
        find_runs(start, tmp_path)


def test_variants_without_a_common_seed_and_unequal_problem_sets_are_refused(record, tmp_path):
    a, b = [record("grpo", seed=seed) for seed in (0, 1)], [record("asymgrpo", seed=seed) for seed in (2, 3)]
    with pytest.raises(ValueError, match=r"share no seed \(\[0, 1\] and \[2, 3\]\)"):
        compare(a, b)
    with pytest.raises(ValueError, match="3 and 2 problems cannot be paired"):
        compare(a[:1], [record("asymgrpo", seed=0, correct=[1, 2])])


def test_as_tables_and_as_json(record, tmp_path):
    for seed in (0, 1):
        record("grpo", seed), record("asymgrpo", seed)
    command = ["compare", "grpo", "asymgrpo", "--results", str(tmp_path)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0 and "a: grpo (small, seeds 0 1)" in shown.output
    assert "beta_pos" in shown.output and "paired over seeds" in shown.output
    content = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert content["specs"][0] == {"field": "method", "a": "grpo", "b": "asymgrpo"}
    assert {"measure", "a", "b", "difference", "low", "high", "n"} == content["measures"][0].keys()
