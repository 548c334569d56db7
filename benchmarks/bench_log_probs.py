"""What vLLM's rollout pays for the log-probs of its tokens, which `rollout.calculate_log_probs` asks for: about ten minutes.

Random weights in the shape of Qwen3-0.6B, whose vocabulary of 151,936 entries is what a log-prob costs. It needs vLLM, so on a
CPU the environment of `make test-vllm`: PYTHONPATH=. .venv-vllm/bin/python benchmarks/bench_log_probs.py
"""

import argparse
import os
import tempfile
import time

from common import conditions, median_ratio, report

PROMPTS, TOKENS, LENGTH = 64, 32, 64  # rollouts at once, tokens of each, tokens of a prompt
os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_CPU_KVCACHE_SPACE="2", HF_HUB_OFFLINE="1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from vllm import LLM, SamplingParams

    config = Qwen3Config(hidden_size=1024, num_hidden_layers=28, intermediate_size=3072, num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)  # fmt: skip  # noqa: E501
    with tempfile.TemporaryDirectory() as folder:
        Qwen3ForCausalLM(config).save_pretrained(folder)
        engine = LLM(folder, skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True, max_model_len=1024, seed=0)
    prompts = [{"prompt_token_ids": [(7 * i + 13 * t) % config.vocab_size for t in range(LENGTH)]} for i in range(PROMPTS)]
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for repeat in range(repeats + 1):
        for name, log_probs in (("without", None), ("with", 0)):  # 0: of the sampled token alone, as verl asks
            wanted = SamplingParams(max_tokens=TOKENS, ignore_eos=True, detokenize=False, seed=repeat, logprobs=log_probs)
            started = time.perf_counter()
            engine.generate(prompts, wanted, use_tqdm=False)
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    row = {
        "rollouts": PROMPTS,
        "tokens": TOKENS,
        "without, s": sorted(seconds["without"])[repeats // 2],
        "with, s": sorted(seconds["with"])[repeats // 2],
        "with / without": median_ratio(seconds["with"], seconds["without"]),
    }
    clock = conditions(repeats, "seconds by the clock")
    report("log_probs", "log-probs of the sampled tokens, Qwen3-0.6B's shape", [row], clock)


if __name__ == "__main__":
    main()
