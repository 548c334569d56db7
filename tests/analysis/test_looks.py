"""One look and one label a variant, everywhere."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from asymlib import make_spec
from asymlib.analysis.looks import BETAS, LOOKS, SWEEPS, in_order, label, look, math
from asymlib.methods import CATALOGUE, METHODS, Method


def lightness(color) -> float:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114)))


def test_every_method_and_relative_has_a_look_of_its_own():
    """Line style and marker alone tell any two apart: a grey print can be read."""
    names = [name for name in dict.fromkeys([*LOOKS, *CATALOGUE]) if "=" not in name]  # two sweeps never share a panel
    assert set(METHODS) <= set(LOOKS)
    assert len({look(name).color for name in names}) == len(names)
    assert len({(look(name).linestyle, look(name).marker) for name in names}) == len(names)
    assert all(lightness(look(name).color) < 0.75 for name in names)  # visible on white


def test_a_new_row_gets_a_look_and_changes_nobody_elses(monkeypatch):
    before = {name: look(name) for name in CATALOGUE}
    new = Method(name="mirrored", label="Mirrored", source="a test", beta_pos=0.4, beta_neg=0.9)
    monkeypatch.setattr("asymlib.analysis.looks.CATALOGUE", {**CATALOGUE, "mirrored": new})
    assert {name: look(name) for name in CATALOGUE} == before and look("mirrored") not in before.values()
    assert label("mirrored beta_pos=0.5") == "Mirrored, β_pos = 0.5"
    assert look("mirrored beta_pos=0.5") == look("mirrored")._replace(linestyle=":")
    assert in_order(["mirrored", "grpo", "reinforce beta_pos=1.0"]) == ["reinforce beta_pos=1.0", "grpo", "mirrored"]


@pytest.mark.parametrize("side", SWEEPS)
def test_a_sweep_raises_one_beta_and_keeps_the_methods_looks(side):
    methods = [make_spec(**_fields(variant)).resolved_method for variant in SWEEPS[side]]
    other = {"beta_pos": "beta_neg", "beta_neg": "beta_pos"}[side]
    assert [(getattr(m, side), getattr(m, other)) for m in methods] == [(beta, 0) for beta in BETAS]
    swept = SWEEPS[side]
    assert look(swept[0]) == LOOKS["reinforce"]
    assert look(swept[2]) == LOOKS["pos_only" if side == "beta_pos" else "neg_only"]
    assert len({(look(v).linestyle, look(v).marker) for v in swept}) == len({look(v).color for v in swept}) == 5


def _fields(variant):
    method, _, change = variant.partition(" ")
    name, _, value = change.partition("=")
    return {"method": method} | ({name: float(value)} if name else {})


def test_looks_of_changed_methods():
    assert look("reinforce entropy_coeff=0.02") == LOOKS["reinforce entropy_coeff"]
    assert look("reinforce mask_none_solved=True") == LOOKS["reinforce mask_none_solved"]
    assert look("grpo clip_high=0.3") == LOOKS["grpo"]._replace(linestyle=":")
    assert look("reinforce beta_pos=7.0") == LOOKS["reinforce"]._replace(linestyle=":")
    assert look("reinforce beta_neg=0.5 beta_pos=0.5") == LOOKS["reinforce"]._replace(linestyle=":")
    for changed in ("asymgrpo_symmetric beta_neg=0.3 beta_pos=0.3", "grpo_entropy_reg entropy_coeff=0.03", "psr group_size=16"):
        own = look(changed.split()[0])  # dotted itself
        assert own.linestyle == ":" and look(changed) == own._replace(linestyle=(0, (1, 3)))


def test_labels():
    assert label("reinforce beta_neg=0.75") == "REINFORCE, β_neg = 0.75"
    assert label("reinforce mask_all_solved=True mask_none_solved=True") == "REINFORCE, all-solved masked, none-solved masked"
    assert label(make_spec(method="grpo", entropy_advantage=(0.2, 2)).variant) == "GRPO, entropy_advantage = [0.2,2.0]"
    assert math("β_neg = 1") == r"$\beta_\mathrm{neg}$ = 1"


def test_each_method_has_a_mark_of_its_own_and_is_seen_on_a_dark_ground():
    """In the dark the site's charts mix each colour with white and keep 55% of it; figures stand on white there too."""
    assert len({look(name).marker for name in METHODS}) == len(METHODS)
    for name in METHODS:
        shown = 0.55 * np.array(to_rgb(look(name).color)) + 0.45
        assert (_luminance(shown) + 0.05) / (_luminance(np.array(to_rgb("#14181E"))) + 0.05) > 3, name


def _luminance(channels) -> float:
    """WCAG's, of which a contrast is the ratio."""
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
