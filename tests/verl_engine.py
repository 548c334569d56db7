"""verl's FSDP engine on a CPU without Ray, a process a rank: for the scripts engine_log_probs.py and engine_gradient.py."""

import os
import socket

import torch
from hydra import compose, initialize_config_module
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker

ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def ranks_environment(ranks: int, rank: int, port: str) -> dict[str, str]:
    """What a process of torch.distributed must find in its environment."""
    found = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank}
    return {name: str(value) for name, value in found.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def actor_config(folder: str, *overrides: str):
    """verl's configuration of an actor that trains the checkpoint in `folder`, as the profile `cpu` sets it."""
    settings = [
        f"{MODEL}.path={folder}",
        f"+{MODEL}.override_config.attn_implementation=sdpa",
        f"{MODEL}.enable_gradient_checkpointing=False",
        f"{MODEL}.use_remove_padding=False",
        "actor_rollout_ref.rollout.name=transformers",
        f"{ACTOR}.strategy=fsdp2",
        f"{ACTOR}.fsdp_config.use_torch_compile=False",
        f"{ACTOR}.fsdp_config.dtype=float32",
        f"+{ACTOR}.fsdp_config.mixed_precision={{param_dtype: fp32, reduce_dtype: fp32, buffer_dtype: fp32}}",
        f"{ACTOR}.use_dynamic_bsz=True",
        *overrides,
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", settings)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.model_config = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    return actor


def make_worker(actor, tokens: int = 8192) -> TrainingWorker:
    """Its worker: this rank's, or one alone. `tokens`: the most of a micro-batch."""
    if "RANK" not in os.environ:
        os.environ.update(ranks_environment(1, 0, free_port()))
    engine = actor.engine
    engine.use_dynamic_bsz, engine.use_remove_padding = True, False
    engine.max_token_len_per_gpu = engine.infer_max_token_len_per_gpu = tokens
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=actor.model_config,
            engine_config=engine,
            optimizer_config=actor.optim,
            checkpoint_config=actor.checkpoint,
        )
    )
    worker.reset()
    return worker


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def make_batch(prompts, responses, masks=None, *, tensors: dict | None = None, **settings):
    """Rows of token ids as verl's engine wants them. `masks`: 0 for tokens that no loss counts; all count without."""
    sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    mask = nested(masks or [torch.ones_like(row) for row in responses])
    parts = {
        "prompts": nested(prompts),
        "responses": nested(responses),
        "input_ids": nested(sequences),
        "position_ids": nested([torch.arange(len(row)) for row in sequences]),
        "response_mask": mask,
        "loss_mask": mask,
    }
    return tu.get_tensordict(parts | (tensors or {}), non_tensor_dict={"temperature": 1.0, **settings})
