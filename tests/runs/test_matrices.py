"""The committed matrices expand to the runs that the paper's figures and Table 1 need, and that the lab's protocol names."""

from collections import Counter
from pathlib import Path

import nbformat
import pytest

from asymlib import METHODS, RELATED, make_spec
from asymlib.analysis.claims import SPLITS
from asymlib.analysis.verdicts import FIRST_STUDY, SECOND_STUDY
from asymlib.execution.batch import default_jobs
from asymlib.runs.matrix import load_matrix

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "experiments"
MODELS = {"Qwen/Qwen2.5-Math-1.5B": (512, 128, 2560, 200), "Qwen/Qwen3-4B": (128, 64, 4096, 300)}
SECTION_3 = {
    "reinforce", "reinforce entropy_coeff=0.001", "pos_only", "neg_only", "grpo", "ent_increase", "ent_decrease",
}  # fmt: skip
SWEEPS = {f"reinforce beta_{side}={beta}" for side in ("pos", "neg") for beta in (0.25, 0.75, 1.0)}


def runs(name: str) -> set[tuple[str, str]]:
    return {(spec.variant, spec.policy) for spec in load_matrix(FOLDER / f"{name}.yaml")}


def test_section_3_is_on_both_models():
    assert runs("h100_section3") == {(variant, policy) for variant in SECTION_3 for policy in MODELS}


def test_the_sweeps_are_on_both_models():
    assert runs("h100_section3_sweeps") == {(variant, policy) for variant in SWEEPS for policy in MODELS}


def test_section_4_is_every_row_of_table_1_on_qwen3():
    of_the_paper = list(METHODS)[:14]
    assert runs("h100_section4") == {(method, "Qwen/Qwen3-4B") for method in of_the_paper}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("h100_*.yaml")), ids=lambda path: path.stem)
def test_every_run_has_the_paper_s_settings_on_verl(path):
    for spec in load_matrix(path):
        stated = (spec.prompts_per_step, spec.prompts_per_minibatch, spec.max_response_tokens, spec.steps)
        assert stated == MODELS[spec.policy]
        assert (spec.engine, spec.profile, spec.group_size, spec.learning_rate) == ("verl", "h100", 8, 2e-6)


def test_one_card_has_the_paper_s_effects_in_smaller_batches():
    specs = load_matrix(FOLDER / "gpu1.yaml")
    methods = {"grpo", "asymgrpo", "pos_only", "neg_only", "ent_increase", "ent_decrease", "reinforce"}
    assert {(s.policy, s.variant) for s in specs} == {
        (policy, method) for policy in ("Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-Math-1.5B") for method in methods
    }
    for spec in specs:
        assert (spec.engine, spec.profile, spec.group_size, spec.learning_rate, spec.seed) == ("verl", "gpu1", 8, 2e-6, 0)
        assert (spec.prompts_per_step, spec.max_response_tokens, spec.steps) == (64, 1024, 100)


def test_a_run_that_two_matrices_share_is_one_run():
    section3, section4 = ({s.run_id for s in load_matrix(FOLDER / f"h100_section{n}.yaml")} for n in (3, 4))
    assert len(section3 & section4) == 6


def test_runs_on_verl_follow_one_another():
    verl, lab = make_spec(method="grpo", policy="Qwen/Qwen3-4B"), make_spec(method="grpo")
    assert default_jobs([verl, verl]) == default_jobs([lab, verl]) == 1
    assert default_jobs([lab]) >= 1


def test_both_lab_policies_have_the_same_variants():
    small = runs("lab_small") | runs("lab_sweeps")
    assert (
        {variant for variant, _ in runs("lab_base")}
        == {variant for variant, _ in small}
        == set(METHODS) | SWEEPS | {"reinforce entropy_coeff=0.01"}
    )


def test_tuning_has_one_budget_and_seeds_that_nothing_reports():
    tuning = load_matrix(FOLDER / "lab_tuning.yaml")
    assert Counter(spec.method for spec in tuning) == dict.fromkeys(("asymgrpo", "asymgrpo_symmetric", "grpo_entropy_reg"), 12)
    reported = [
        spec
        for name in ("small", "base", "sweeps", "beta_plane", "group_size", "tuned", "long")
        for spec in load_matrix(FOLDER / f"lab_{name}.yaml")
    ]
    for part in ("seed", "warmup_seed"):
        assert max(getattr(spec, part) for spec in tuning) < 10 <= min(getattr(spec, part) for spec in reported)
    assert {spec.profile for spec in tuning} == {"tuning"}


def test_what_tuning_chose_is_trained_on_the_reporting_seeds():
    """What the notebook prints as chosen from the committed records has a run on every seed of the small policy."""
    cells = nbformat.read(FOLDER.parent / "35_tuned.ipynb", as_version=4).cells
    said = next(cell.outputs[0].text for cell in cells if cell.id == "choose")
    chosen = said.strip().split("chosen: ")[1].split(", ")
    reported = load_matrix(FOLDER / "lab_small.yaml") + load_matrix(FOLDER / "lab_tuned.yaml")
    for variant in chosen:
        assert sorted(spec.seed for spec in reported if spec.variant == variant) == list(range(100, 108))
    assert {spec.variant for spec in load_matrix(FOLDER / "lab_tuned.yaml")} < set(chosen)


def test_long_runs_have_seeds_of_their_own_and_the_variants_of_the_claims_that_they_judge():
    long = load_matrix(FOLDER / "lab_long.yaml")
    others = {
        spec.seed
        for name in ("small", "sweeps", "beta_plane", "group_size", "tuned")
        for spec in load_matrix(FOLDER / f"lab_{name}.yaml")
    }
    assert others.isdisjoint(spec.seed for spec in long)
    judged = [contrast for claim, contrast in FIRST_STUDY.contrasts if claim.id in {"C3", "C5", "C11", "C12"}]
    needed = {variant for contrast in judged for variant in contrast.weights}
    assert {spec.variant for spec in long} == needed
    for spec in long:  # as many validations to choose the best checkpoint from as a run of 500 steps has
        assert spec.steps / spec.validation_every == 500 / 10


STUDY_2 = {
    "controls": range(200, 208), "rates": range(200, 208), "decisive": range(300, 316), "related": range(200, 204),
    "clip": range(200, 208), "scale": range(400, 408), "countdown": range(500, 512), "countdown_rest": range(500, 512),
    "temperatures": range(200, 208),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDY_2)
def test_the_second_study_has_new_seeds_each_with_its_own_checkpoint(name):
    specs = load_matrix(FOLDER / f"lab_{name}.yaml")
    assert {spec.seed for spec in specs} == set(STUDY_2[name])
    assert {spec.profile for spec in specs} == {name.removesuffix("_rest")}
    assert all(spec.warmup_seed == spec.seed for spec in specs)
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)  # seed after seed, so that whole seeds finish
    variants = Counter((spec.variant, spec.learning_rate) for spec in specs)
    assert set(variants.values()) == {len(STUDY_2[name])}


def test_nineteen_relatives_run_beside_grpo_and_asymgrpo_with_their_published_coefficients():
    variants = {variant for variant, _ in runs("lab_related")}
    assert {"grpo", "asymgrpo"} < variants <= {*RELATED, "grpo", "asymgrpo"} and len(variants) == 21  # later rows need no run


def test_the_decisive_runs_have_every_method_of_table_1():
    assert set(METHODS) < {variant for variant, _ in runs("lab_decisive")}
    assert {variant for variant, _ in runs("lab_scale")} == {variant for variant, _ in runs("lab_decisive")}


def test_countdown_has_every_variant_of_the_claims_and_none_twice():
    first, rest = ({variant for variant, _ in runs(f"lab_countdown{name}")} for name in ("", "_rest"))
    of_claims = [split for split in SPLITS if split.side != "both"]
    splits = {variant for split in of_claims for contrast in split.parts.values() for variant in contrast.weights}
    judged = {variant for _, contrast in SECOND_STUDY.contrasts for variant in contrast.weights}
    missing = judged | splits | set(METHODS)
    assert not first & rest and first | rest == missing


def test_the_setting_of_clip_has_four_times_the_updates_of_the_others():
    specs = load_matrix(FOLDER / "lab_clip.yaml")
    assert {spec.prompts_per_step // spec.prompts_per_minibatch for spec in specs} == {16}
    needed = {variant for claim, c in SECOND_STUDY.contrasts if claim.id == "C12" for variant in c.weights}
    assert needed | {"grpo", "asymgrpo"} == {spec.variant for spec in specs}
