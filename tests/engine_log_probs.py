"""A script: log-probs that verl's FSDP engine gives the tokens of a file, in one process without Ray, on a CPU."""

import os
import socket
import sys

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
os.environ |= {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

import torch
from hydra import compose, initialize_config_module
from safetensors.torch import load_file, save_file
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.padding import response_from_nested

folder, tokens_file, output = sys.argv[1:]
actor, model = "actor_rollout_ref.actor", "actor_rollout_ref.model"
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose(
        "ppo_trainer",
        [
            f"{model}.path={folder}",
            f"+{model}.override_config.attn_implementation=sdpa",
            f"{model}.enable_gradient_checkpointing=False",
            f"{model}.use_remove_padding=False",
            "actor_rollout_ref.rollout.name=transformers",
            f"{actor}.strategy=fsdp2",
            f"{actor}.fsdp_config.use_torch_compile=False",
            f"{actor}.fsdp_config.dtype=float32",
            f"+{actor}.fsdp_config.mixed_precision={{param_dtype: fp32, reduce_dtype: fp32, buffer_dtype: fp32}}",
            f"{actor}.use_dynamic_bsz=True",
        ],
    )
model_config = omega_conf_to_dataclass(config.actor_rollout_ref.model)
actor_config = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
actor_config.model_config = model_config
engine = actor_config.engine
engine.use_dynamic_bsz, engine.use_remove_padding = True, False
engine.max_token_len_per_gpu = engine.infer_max_token_len_per_gpu = 8192
worker = TrainingWorker(
    TrainingWorkerConfig(
        model_type="language_model",
        model_config=model_config,
        engine_config=engine,
        optimizer_config=actor_config.optim,
        checkpoint_config=actor_config.checkpoint,
    )
)
worker.reset()

tokens = load_file(tokens_file)
lengths = tokens["lengths"].tolist()
prompts = list(tokens["prompts"])
responses = [row[:n] for row, n in zip(tokens["responses"], lengths, strict=True)]
sequences = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


mask = nested([torch.ones_like(row) for row in responses])
batch = tu.get_tensordict(
    {
        "prompts": nested(prompts),
        "responses": nested(responses),
        "input_ids": nested(sequences),
        "position_ids": nested([torch.arange(len(row)) for row in sequences]),
        "response_mask": mask,
        "loss_mask": mask,
    },
    non_tensor_dict={
        "temperature": 1.0, "calculate_entropy": False, "compute_loss": False, "global_batch_size": len(lengths),
    },
)  # fmt: skip
found = response_from_nested(worker.infer_batch(batch)["log_probs"], mask)
padded = torch.nested.to_padded_tensor(found, 0.0, output_size=tokens["responses"].shape)
save_file({"log_probs": padded.float().contiguous()}, output)
