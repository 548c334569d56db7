"""Carry a lab policy and its task to every engine that loads a Hugging Face folder (transformers, verl, vLLM).

    <folder>/                 OlmoForCausalLM weights, configuration, tokenizer with a chat template
    <folder>/data/*.parquet   the task in verl's schema: train and the five held-out sets
    <folder>/data/benchmarks.json   the names of the held-out sets; the first selects the checkpoint

The prompt's tokens, the response's tokens and the reward are those of the lab.
"""

import shutil
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ..support.files import write_json
from .policy import NORM_EPS, ROTARY_BASE, Policy
from .tasks import EOS, TASKS, Task, to_text
from .warmup import load_warm_policy

TRAINING_PROMPTS = 4096
VALIDATION_PROMPTS = 50  # of each held-out set, at even distances: a validation of seconds, not minutes, on a CPU
OLMO_NORM_EPS = 1e-5  # fixed in OLMo's code, no field of its configuration
# One user message, its content the prompt as the lab writes it; nothing is added.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def export_policy(policy: str, warmup_seed: int, results: Path, folder: Path, task: str = "walk") -> Path:
    """Write the warm policy (made now if `results/warmup/` lacks it) and its task's data to `folder`; returns it.

    The folder appears whole or not at all. Raises ValueError if it exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"folder={str(folder)!r}: exists already; name one that does not")
    from transformers.utils import logging

    logging.disable_progress_bar()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)  # before minutes of warm-up
    except OSError as error:
        raise ValueError(f"folder={str(folder)!r}: cannot be made: {error.strerror}") from None
    try:
        _write(load_warm_policy(policy, warmup_seed, results, task), task, partial)
        return partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(policy: Policy, task: str, folder: Path) -> None:
    """Model, tokenizer and data."""
    to_hugging_face(policy).save_pretrained(folder)
    tokenizer(TASKS[task]).save_pretrained(folder)
    (folder / "data").mkdir()
    training = TASKS[task].training_prompts(TRAINING_PROMPTS, torch.Generator().manual_seed(0))
    _verl_rows(task, f"{task}-train", training).to_parquet(folder / "data" / "train.parquet", index=False)
    for name, prompts in TASKS[task].benchmark_prompts().items():
        rows = _verl_rows(task, name, prompts[:: max(1, len(prompts) // VALIDATION_PROMPTS)])
        rows.to_parquet(folder / "data" / f"{name}.parquet", index=False)
    write_json(folder / "data" / "benchmarks.json", list(TASKS[task].HELD_OUT))


def to_hugging_face(policy: Policy):
    """The policy as a transformers OlmoForCausalLM, float32: tensors renamed, rotary pairs reordered."""
    from transformers import GenerationConfig, OlmoConfig, OlmoForCausalLM

    assert NORM_EPS == OLMO_NORM_EPS
    shape, embedding = policy.shape, policy.embedding.weight
    sizes = dict(hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads)
    sizes |= dict(intermediate_size=shape.hidden, vocab_size=len(policy.task.VOCABULARY), max_position_embeddings=64)
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE}
    ends = dict(bos_token_id=None, eos_token_id=EOS, pad_token_id=EOS)
    model = OlmoForCausalLM(OlmoConfig(**sizes, **ends, tie_word_embeddings=True, rope_parameters=rotary))
    weights = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    for i, block in enumerate(policy.blocks):
        q, k, v = block.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        attention = dict(q=_half_split(q, shape.heads), k=_half_split(k, shape.heads), v=v, o=block.out.weight)
        mlp = dict(gate=gate, up=up, down=block.down.weight)
        for part, layer in (("self_attn", attention), ("mlp", mlp)):
            weights |= {f"model.layers.{i}.{part}.{name}_proj.weight": weight for name, weight in layer.items()}
    model.load_state_dict(weights)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=EOS)
    return model


def _half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection: the lab turns the pairs (2i, 2i + 1) of a head, transformers (i, i + d/2)."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def tokenizer(task: Task):
    """A fast tokenizer of the task's vocabulary: words between blanks; `<eos>` also pads."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    eos = task.VOCABULARY[EOS]
    words = Tokenizer(models.WordLevel(_token_of(task), unk_token="<none>"))  # a word that is not the task's is an error
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=eos, pad_token=eos)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _token_of(task: Task) -> dict[str, int]:
    return {word: token for token, word in enumerate(task.VOCABULARY)}


def _verl_rows(task: str, data_source: str, prompts: Tensor) -> pd.DataFrame:
    """One row a prompt, in the columns that verl's dataset reads. The prompt itself is all that the reward needs."""
    split = "train" if data_source.endswith("-train") else "test"
    rows = []
    for i, text in enumerate(to_text(TASKS[task], prompt) for prompt in prompts):
        prompt, answer = [{"role": "user", "content": text}], {"style": "rule", "ground_truth": text}
        rows.append((data_source, prompt, TASKS[task].TITLE, answer, {"split": split, "index": i}))
    return pd.DataFrame(rows, columns=["data_source", "prompt", "ability", "reward_model", "extra_info"])


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **_) -> float:
    """The lab's reward for verl: `solution_str` is the decoded response without <eos>, `ground_truth` the prompt's text.

    `data_source` begins with the task's name and a hyphen. A response that filled all T tokens without <eos> has T words left
    and is wrong, as in the lab.
    """
    task = TASKS[data_source.split("-")[0]]
    words, token_of = solution_str.split(), _token_of(task)
    if len(words) > task.RESPONSE_TOKENS or not set(words) <= token_of.keys():
        return 0.0
    response = torch.full((1, task.RESPONSE_TOKENS), EOS)
    response[0, : len(words)] = torch.tensor([token_of[word] for word in words], dtype=torch.long)
    prompt = torch.tensor([[token_of[word] for word in ground_truth.split()]])
    return task.reward(prompt, response).item()
