"""What a problem becomes as a prompt, and how long that is: verl cuts the beginning of a prompt that is too long."""

import re
from collections.abc import Callable

# Our choice, the paper does not state its template: Qwen's own words for mathematics, after the problem in the user's turn.
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
MAX_PROMPT_TOKENS = 1536  # our choice, the paper states none: with 2,560 of response it fills Qwen2.5-Math's 4,096 positions
PIECES = "pieces: a digit, up to six letters, spaces, any other sign; and 64 for the template"
_PIECE = re.compile(r"\d|[A-Za-z]{1,6}|\s+|[^\sA-Za-z\d]")


def prompt(problem: str) -> str:
    """The user's turn."""
    return f"{problem}\n{INSTRUCTION}"


def counter(tokenizer: str | None) -> Callable[[str], int]:
    """What counts the tokens of a problem's prompt, the template of `tokenizer` (a model's folder or id) around it.

    Without one, `PIECES` are counted: more than Qwen3 and Qwen2.5 make of any problem in the paper's sets
    (tests/real/test_tokenizers.py), so what is kept fits. Raises ValueError for no tokenizer.
    """
    if tokenizer is None:
        return lambda problem: len(_PIECE.findall(prompt(problem))) + 64
    from transformers import AutoTokenizer

    try:
        model = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError):
        raise ValueError(f"--tokenizer {tokenizer}: no tokenizer; must be a model's folder or its id on the hub") from None

    def tokens(problem: str) -> int:
        chat = [{"role": "user", "content": prompt(problem)}]
        text = model.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, enable_thinking=False)
        return len(model(text, add_special_tokens=False)["input_ids"])

    return tokens
