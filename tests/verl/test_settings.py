"""The settings against verl itself: hydra composes them, verl's own validation passes, and they say what the paper says."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from asymlib import METHODS, make_spec
from asymlib.runs.matrix import load_matrix
from asymlib.verl.setting import ONE_NODE, Machine, Setting
from asymlib.verl.settings import settings
from asymlib.verl.target import target_of

MODELS = {"Qwen/Qwen2.5-Math-1.5B": (512, 128, 2560), "Qwen/Qwen3-4B": (128, 64, 4096)}
ROOT = Path(__file__).parents[2]
FOLDER, DATA = Path("/records/of a run"), Path("/data")


def overrides(spec, machine=ONE_NODE):
    return [row.override for row in settings(spec, FOLDER, DATA, machine)]


@pytest.fixture(scope="module")
def composed():
    """composed(spec or overrides): verl's whole configuration."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        yield lambda wanted: compose("ppo_trainer", wanted if isinstance(wanted, list) else overrides(wanted))


@pytest.mark.parametrize("policy", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_verl_accepts_every_method_on_both_models(composed, method, policy):
    spec = make_spec(method=method, policy=policy, seed=3, steps=20)
    config = composed(spec)
    assert not need_reference_policy(config) and not need_critic(config)
    validate_config(config, use_reference_policy=False, use_critic=False)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)

    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    batch, mini_batch, response = MODELS[policy]
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size, config.data.max_response_length) == (
        batch, mini_batch, response,
    )  # fmt: skip
    assert (rollout.n, actor.optim.lr, actor.optim.optimizer, config.trainer.n_gpus_per_node) == (8, 2e-6, "AdamW", 4)
    assert (config.trainer.test_freq, config.trainer.save_freq, rollout.val_kwargs.temperature) == (10, 10, 0)
    assert config.data.apply_chat_template_kwargs.enable_thinking is False
    assert config.algorithm.adv_estimator == config.trainer.v1.trainer_mode == "asymlib"
    assert config.algorithm.asymlib == {"method": method}
    wanted = METHODS[method]
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.entropy_coeff, actor.loss_agg_mode) == (
        wanted.clip_low, wanted.clip_high, wanted.entropy_coeff, wanted.loss_aggregation,
    )  # fmt: skip
    assert actor.loss_scale_factor == response
    assert rollout.max_model_len <= {"Qwen/Qwen2.5-Math-1.5B": 4096, "Qwen/Qwen3-4B": 40_960}[policy]
    assert rollout.max_model_len <= actor.ppo_max_token_len_per_gpu


def test_the_paper_s_values_reach_verl(composed):
    """Hand-copied from Table 1 and Section 4, not from METHODS."""
    actor = {
        method: composed(make_spec(method=method, policy="Qwen/Qwen3-4B")).actor_rollout_ref.actor
        for method in ("grpo", "grpo_clip_higher", "asymgrpo_clip_higher", "grpo_entropy_reg", "dr_grpo")
    }
    assert {m: a.clip_ratio_high for m, a in actor.items() if "clip" in m} == {
        "grpo_clip_higher": 0.28,
        "asymgrpo_clip_higher": 0.28,
    }
    assert actor["grpo"].clip_ratio_high == actor["grpo_clip_higher"].clip_ratio_low == 0.2
    assert (actor["grpo_entropy_reg"].entropy_coeff, actor["grpo"].entropy_coeff) == (0.001, 0)
    assert (actor["dr_grpo"].loss_agg_mode, actor["dr_grpo"].loss_scale_factor) == ("seq-mean-token-sum-norm", 4096)
    assert actor["grpo"].loss_agg_mode == "token-mean"


def test_changes_of_the_method_reach_the_estimator_and_the_loss(composed):
    spec = make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", beta_pos=0.75, clip_high=0.3)
    config = composed(spec)
    assert config.algorithm.asymlib == {"method": "asymgrpo", "beta_pos": 0.75, "clip_high": 0.3}
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.3
    sources = {s.key: s.source for s in settings(spec, FOLDER, DATA)}
    assert sources["actor_rollout_ref.actor.clip_ratio_high"] == "this run's change of the method"


def test_every_setting_says_where_it_comes_from_and_no_key_is_set_twice():
    rows = settings(make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", beta_pos=0.7), FOLDER, DATA)
    assert all(row.source for row in rows)
    assert len({row.key for row in rows}) == len(rows)
    assert {"paper", "our choice"} <= {row.source.split(",")[0].split(":")[0] for row in rows}


@pytest.mark.parametrize(
    ("fields", "key", "said"),
    [
        ({}, "data.train_batch_size", "paper, Appendix C"),
        ({"prompts_per_step": 256}, "data.train_batch_size", "our choice: the paper has 128 (Appendix C)"),
        ({"group_size": 16}, "actor_rollout_ref.rollout.n", "our choice: the paper has 8 (Appendix C)"),
        ({"policy": "some/model"}, "data.train_batch_size", "our choice: the paper trains other models"),
        ({}, "actor_rollout_ref.actor.optim.weight_decay", "our choice: not stated; verl's default"),
        ({"method": "grpo_clip_higher"}, "actor_rollout_ref.actor.clip_ratio_high", METHODS["grpo_clip_higher"].source),
    ],
)
def test_a_value_that_is_not_the_paper_s_is_not_called_so(fields, key, said):
    rows = settings(make_spec(**{"method": "grpo", "policy": "Qwen/Qwen3-4B"} | fields), FOLDER, DATA)
    assert next(row.source for row in rows if row.key == key) == said


def test_files_lie_in_the_record_and_in_the_data_folder(composed):
    config = composed(make_spec(method="grpo", policy="Qwen/Qwen3-4B"))
    assert config.trainer.default_local_dir == "/records/of a run/checkpoints"
    assert config.trainer.validation_data_dir == "/records/of a run/samples/validation"
    assert config.data.train_files == "/data/train.parquet"
    assert [Path(p).stem for p in config.data.val_files] == [
        "math-500", "aime-2024", "aime-2025", "amc-2023", "olympiadbench",
    ]  # fmt: skip


def test_nodes_and_gpus_can_be_others(composed):
    spec = make_spec(method="grpo", policy="Qwen/Qwen3-4B")
    config = composed(overrides(spec, Machine(nodes=2, gpus_per_node=8)))
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (2, 8)
    validate_config(config, use_reference_policy=False, use_critic=False)


def test_a_machine_passes_through_the_environment(monkeypatch):
    assert Machine.of_environment() == Machine(1, 4, "127.0.0.1", None)
    machine = Machine(
        nodes=2, gpus_per_node=8, dashboard_host="0.0.0.0", ray_address="10.0.0.1:6379", patience=5, overrides=("a.b='x y'",)
    )
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    assert Machine.of_environment() == machine


@pytest.mark.parametrize("text", ["abc", "0", "-1", "", "10**9"])
def test_a_number_of_nodes_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("ASYMLIB_NODES", text)
    with pytest.raises(ValueError, match=f"ASYMLIB_NODES={re.escape(repr(text))}: must be a whole number"):
        Machine.of_environment()


def test_settings_by_hand_come_last_but_the_spec_s_are_the_spec_s(composed):
    spec = make_spec(method="grpo", policy="Qwen/Qwen3-4B", increment_every=5)
    by_hand = Machine(overrides=("actor_rollout_ref.rollout.gpu_memory_utilization=0.4", "+actor_rollout_ref.x=null"))
    config = composed(overrides(spec, by_hand))
    assert config.actor_rollout_ref.rollout.gpu_memory_utilization == 0.4 and config.actor_rollout_ref.x is None
    assert config.actor_rollout_ref.rollout.calculate_log_probs is True and config.trainer.asymlib.increment_every == 5
    with pytest.raises(
        ValueError, match=r"--override data.train_batch_size: the spec defines it, so change the spec \(--set\)"
    ):
        overrides(spec, Machine(overrides=("data.train_batch_size=4",)))
    with pytest.raises(ValueError, match="'oops': must read NAME=VALUE"):
        overrides(spec, Machine(overrides=("oops",)))


def test_gpus_that_cannot_share_a_mini_batch_are_refused():
    spec = make_spec(method="grpo", policy="Qwen/Qwen3-4B", prompts_per_step=6, prompts_per_minibatch=3, group_size=8)
    for nodes, gpus in ((1, 1), (1, 8), (2, 4), (3, 8)):
        overrides(spec, Machine(nodes, gpus))
    with pytest.raises(ValueError, match=r"2 x 8 GPUs: .* 24 rollouts \(prompts_per_minibatch=3 x group_size=8\)"):
        overrides(spec, Machine(2, 8))


def test_the_lab_has_no_verl_configuration():
    with pytest.raises(ValueError, match="engine='lab': only 'verl'"):
        settings(make_spec(method="grpo"), FOLDER, DATA)


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1)
    | st.sampled_from(["a\\'b", "\\", "${x}", "null", "1e-3"])
)
def test_any_path_survives_hydra_s_grammar(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(Setting("key", text, "").override)
    config = OmegaConf.create({"key": override.value()})
    assert config.key == text


ONE_CARD = load_matrix(ROOT / "notebooks" / "experiments" / "gpu1.yaml")


@pytest.mark.parametrize("spec", ONE_CARD, ids=lambda spec: f"{spec.method}-{spec.policy[5:]}")
def test_verl_accepts_the_runs_for_one_card(composed, spec):
    machine = Machine(gpus_per_node=target_of(spec).gpus)
    config = composed(overrides(spec, machine))
    validate_config(config, use_reference_policy=False, use_critic=False)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.trainer.n_gpus_per_node, rollout.gpu_memory_utilization, actor.fsdp_config.optimizer_offload) == (
        1,
        0.4,
        True,
    )
    assert rollout.max_model_len <= actor.ppo_max_token_len_per_gpu == 4096 and rollout.name == "vllm"


def test_a_rehearsal_on_a_cpu_replaces_machine_and_model_only(monkeypatch, tmp_path):
    """The algorithm's settings, data, prompts, reward and validation are the run's."""
    spec = make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", profile="h100")
    before = {row.name: row.value for row in settings(spec, FOLDER, DATA)}
    monkeypatch.setenv("ASYMLIB_STAND_IN", str(tmp_path))
    after = {row.name: row.value for row in settings(spec, FOLDER, DATA)}
    changed = {name for name in after if after[name] != before.get(name)}
    assert after["actor_rollout_ref.model.path"] == str(tmp_path) and before.keys() <= after.keys()
    machine = (
        "actor_rollout_ref.",
        "trainer.device",
        "ray_kwargs",
        "data.dataloader",
        "reward.num",
        "transfer_q",
        "trainer.asym",
    )
    assert all(name.startswith(machine) for name in changed)
    kept = ("optim", "clip", "loss", "entropy_coeff", "temperature", "rollout.n=", "ppo_mini", "ppo_epochs", "seed")
    assert not [name for name in changed if any(word in name.partition(".")[2] + "=" for word in kept)]


@pytest.mark.parametrize(("cores", "gpus", "counted"), [(8, 1, 15), (8, 4, 24), (96, 4, 96), (None, 1, 15)])
def test_a_ray_of_our_own_counts_the_cpus_that_verl_s_actors_reserve(monkeypatch, cores, gpus, counted):
    """Nine of the queue and three a GPU; with fewer the run waits without an end. A cluster counts its own."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    spec, key = make_spec(method="grpo", policy="Qwen/Qwen3-4B"), "ray_kwargs.ray_init.num_cpus"
    assert {row.key: row.value for row in settings(spec, FOLDER, DATA, Machine(gpus_per_node=gpus))}[key] == counted
    assert key not in {row.key for row in settings(spec, FOLDER, DATA, Machine(ray_address="a:1"))}
