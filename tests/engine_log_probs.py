"""A script: log-probs that verl's FSDP engine gives the tokens of a file, in one process without Ray, on a CPU."""

import sys

import torch
from safetensors.torch import load_file, save_file
from verl.workers.utils.padding import response_from_nested
from verl_engine import actor_config, make_batch, make_worker

folder, tokens_file, output = sys.argv[1:]
tokens = load_file(tokens_file)
responses = [row[:n] for row, n in zip(tokens["responses"], tokens["lengths"].tolist(), strict=True)]
settings = {"calculate_entropy": False, "compute_loss": False, "global_batch_size": len(responses)}
batch = make_batch(list(tokens["prompts"]), responses, **settings)
mask = batch["response_mask"]
found = response_from_nested(make_worker(actor_config(folder)).infer_batch(batch)["log_probs"], mask)
padded = torch.nested.to_padded_tensor(found, 0.0, output_size=tokens["responses"].shape)
save_file({"log_probs": padded.float().contiguous()}, output)
