"""A script, started once a rank: entropies, log-probs and the gradient that verl's FSDP engine has of a batch, without Ray.

engine_gradient.py CHECKPOINT BATCH.json OUTPUT. The batch: rows of prompt, response and advantage, which the ranks share
evenly, filled up with verl's own padding rows; and cases, each a way to aggregate the loss, an entropy coefficient and the most
tokens of a micro-batch. The learning rate is 0, so that all cases have one policy.
"""

import functools
import json
import sys
from pathlib import Path

import torch
import torch.distributed
from safetensors.torch import save_file
from verl.trainer.ppo.padding_utils import construct_minimal_padding_template
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import response_from_nested
from verl_engine import ACTOR, actor_config, make_batch, make_worker, nested

folder, batch_file, output = sys.argv[1:]
given = json.loads(Path(batch_file).read_text())
rows, eos = given["rows"], given["eos"]
worker = make_worker(actor_config(folder, f"{ACTOR}.optim.lr=0", f"{ACTOR}.grad_clip=1e9"))
ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()

real = len(rows)
template, _ = construct_minimal_padding_template({"position_ids": torch.arange(3)}, {}, eos)
whole = [(torch.tensor(r["prompt"]), torch.tensor(r["response"]), torch.ones(len(r["response"]))) for r in rows]
whole += [(template["prompts"], template["responses"], template["response_mask"].float())] * (-real % ranks)
advantages = [row["advantage"] for row in rows] + [0.0] * (-real % ranks)
share = slice(rank * len(whole) // ranks, (rank + 1) * len(whole) // ranks)
prompts, responses, masks = map(list, zip(*whole[share], strict=True))
masks = [mask.long() for mask in masks]

asked = make_batch(prompts, responses, masks, calculate_entropy=True, compute_loss=False, global_batch_size=len(whole))
found = worker.infer_batch(asked)
entropy, old = (response_from_nested(found[name], asked["response_mask"]) for name in ("entropy", "log_probs"))
out = {
    f"{name}/{share.start + i}": row
    for name, part in (("entropy", entropy), ("log_prob", old))
    for i, row in enumerate(part.unbind())
}

gradient = {}


def keep_gradient(step=worker.engine.optimizer_step):
    """verl drops it after the step."""
    for name, weight in worker.engine.module.named_parameters():
        gradient[name] = weight.grad.full_tensor().clone()
    return step()


worker.engine.optimizer_step = keep_gradient
forward_step, micro_batches = worker.engine.forward_step, []


def count(*arguments, **named):
    micro_batches.append(1)
    return forward_step(*arguments, **named)


worker.engine.forward_step = count
for number, case in enumerate(given["cases"]):
    loss = actor_config(
        folder,
        f"{ACTOR}.loss_agg_mode={case['loss_aggregation']}",
        f"{ACTOR}.entropy_coeff={case['entropy_coeff']}",
        f"{ACTOR}.loss_scale_factor={given['response_tokens']}",
    )
    worker.set_loss_fn(functools.partial(ppo_loss, loss))
    worker.engine_config.max_token_len_per_gpu = case["tokens"]
    per_token = [torch.full((len(row),), value) for row, value in zip(responses, advantages[share], strict=True)]
    batch = make_batch(
        prompts, responses, masks,
        tensors={"old_log_probs": nested(list(old.unbind())), "advantages": nested(per_token)},
        calculate_entropy=case["entropy_coeff"] != 0, global_batch_size=len(whole), mini_batch_size=len(whole), epochs=1,
        seed=0, dataloader_kwargs={"shuffle": False},
    )  # fmt: skip
    micro_batches.clear()
    worker.train_mini_batch(batch)
    out |= {f"{number}/{name}": tensor for name, tensor in gradient.items()}
    out[f"{number}/micro_batches"] = torch.tensor(len(micro_batches))
save_file({name: tensor.float().contiguous() for name, tensor in out.items()}, f"{output}.{rank}")
