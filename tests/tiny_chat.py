"""A chat model small enough for a test: a word-level tokenizer with Qwen3's switch in its template, and a random Qwen3."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, set_seed

SPECIAL = ("<pad>", "<end>", "<unk>")
WORDS = (
    *SPECIAL,
    "user",
    "assistant",
    "<nothink>",
    "what",
    "is",
    "+",
    "?",
    *map(str, range(70)),
)  # more than 50: a top_k would show
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant"
    "{% if enable_thinking is defined and not enable_thinking %} <nothink>{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<end>")
    fast.chat_template = TEMPLATE
    return fast


def write_checkpoint(folder: Path, seed: int = 0, tied: bool = True, head_dim: int = 16) -> Path:
    """A random policy with opinions. The sampling defaults that it comes with must be ignored."""
    set_seed(seed)
    config = Qwen3Config(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=head_dim, max_position_embeddings=128, tie_word_embeddings=tied, bos_token_id=None,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.model.embed_tokens.weight.data *= 6  # logits far from uniform
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.01, top_k=1, top_p=0.1, repetition_penalty=3.0, eos_token_id=[1], pad_token_id=0
    )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
