"""A first step once more, in one process with transformers and nothing of verl: what several ranks must agree with."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asymlib.advantages import group_advantages
from asymlib.runs.spec import ExperimentSpec


class Row(NamedTuple):
    prompt: list[int]
    response: list[int]
    advantage: float


class Step(NamedTuple):
    """Entropies and log-probs of each row's tokens, and the gradient of the loss by the parameters' names."""

    entropy: list[torch.Tensor]
    log_prob: list[torch.Tensor]
    gradient: dict[str, torch.Tensor]

    @property
    def grad_norm(self) -> float:
        return torch.cat([part.flatten() for part in self.gradient.values()]).norm().item()


def recompute(
    model, rows: list[Row], loss_aggregation: str, response_tokens: int, batch: int, entropy_coeff: float = 0.0
) -> Step:
    """The step at its first update, where the policy is still the one that sampled: the ratio is 1 and nothing is clipped.

    token-mean divides by the tokens, seq-mean-token-sum-norm by `batch` (rows of padding included: Dr.GRPO's divisor is a
    constant) times `response_tokens`.
    """
    model.zero_grad()
    tokens = sum(len(row.response) for row in rows)
    divisor = {"token-mean": tokens, "seq-mean-token-sum-norm": batch * response_tokens}[loss_aggregation]
    entropies, log_probs = [], []
    for row in rows:
        ids = torch.tensor([row.prompt + row.response])
        whole = model(ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
        log_prob = whole.gather(-1, torch.tensor(row.response)[:, None]).squeeze(-1)
        entropy = -(whole.exp() * whole).sum(-1)
        (-(row.advantage * log_prob + entropy_coeff * entropy).sum() / divisor).backward()
        entropies.append(entropy.detach())
        log_probs.append(log_prob.detach())
    return Step(entropies, log_probs, {name: weight.grad.clone() for name, weight in model.named_parameters()})


def recompute_run(folder: Path, policy: Path) -> tuple[Step, list[dict], list[Row]]:
    """Step 1 of a record whose steps have one mini-batch, from the responses that it kept; also these, and the rows."""
    spec = ExperimentSpec.model_validate_json((folder / "spec.json").read_bytes())
    assert spec.prompts_per_minibatch == spec.prompts_per_step
    kept = [json.loads(line) for line in (folder / "samples" / "train" / "1.jsonl").read_text().splitlines()]
    kept = [line for line in kept if not line["uid"].startswith("pad")]
    groups = np.array([line["uid"].split("_")[0] for line in kept], dtype=object)  # a uid ends with the rollout's number
    scores = torch.tensor([line["score"] for line in kept])
    advantages = torch.as_tensor(group_advantages(scores, groups, spec.resolved_method)).float()
    tokens = AutoTokenizer.from_pretrained(policy)
    rows = []
    for line, advantage in zip(kept, advantages.tolist(), strict=True):
        prompt, response = (tokens(line[part].strip(), add_special_tokens=False)["input_ids"] for part in ("input", "output"))
        if len(response) < spec.max_response_tokens:
            response = [*response, tokens.eos_token_id]
        rows.append(Row(prompt, response, advantage))
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    batch, method = spec.prompts_per_step * spec.group_size, spec.resolved_method
    step = recompute(model, rows, method.loss_aggregation, spec.max_response_tokens, batch, method.entropy_coeff)
    return step, kept, rows
