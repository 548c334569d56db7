"""Sampling engines against the model's own distribution, and against what vLLM is asked for."""

import sys

import pytest
from tiny_chat import SPECIAL, WORDS, write_checkpoint

from asymlib.evaluation.generation import Sampling, load_transformers, load_vllm


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize(("temperature", "distinct"), [(0.4, 1), (2.0, 51)])
def test_the_sampled_distribution_is_the_models_at_the_temperature(checkpoint, temperature, distinct):
    """First words of 3,000 samples against softmax(logits / T) of the prompt in non-thinking mode, over all the vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chat = [{"role": "user", "content": "what is 1 + 2 ?"}]
    samples = next(iter(load_transformers(str(checkpoint), "float32")([chat], [7], Sampling(3000, temperature, 1))))
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.inference_mode():
        prompt = tokenizer("user what is 1 + 2 ? assistant <nothink>", return_tensors="pt")
        expected = torch.softmax(model(**prompt).logits[0, -1].double() / temperature, 0)
    shown = torch.tensor([samples.count(word) / 3000 for word in WORDS[len(SPECIAL) :]])
    assert (shown - expected[len(SPECIAL) :]).abs().max() < 0.03
    assert samples.count("") / 3000 == pytest.approx(expected[: len(SPECIAL)].sum().item(), abs=0.03)
    assert (shown > 0).sum() >= distinct


def test_the_vllm_engine_asks_for_what_the_settings_say(monkeypatch):
    """Against a stand-in with the signatures of vLLM 0.24.0: vLLM itself is not run here."""
    asked = {}

    class SamplingParams:
        def __init__(self, *, n=1, temperature=1.0, top_p=1.0, max_tokens=16, seed=None):
            self.settings = (n, temperature, top_p, max_tokens, seed)

    class Output:
        def __init__(self, *texts):
            self.outputs = [type("CompletionOutput", (), {"text": text}) for text in texts]

    class LLM:
        def __init__(self, model, dtype="auto"):
            asked.update(model=model, dtype=dtype)

        def chat(self, messages, sampling_params=None, use_tqdm=True, *, chat_template_kwargs=None):
            asked.update(messages=messages, sampling=[p.settings for p in sampling_params], template=chat_template_kwargs)
            return [Output("a", "b") for _ in messages]

    stand_in = type(sys)("vllm")
    stand_in.LLM, stand_in.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    chats = [[{"role": "user", "content": text}] for text in ("one", "two")]
    assert list(load_vllm("folder", "float32")(chats, [11, 12], Sampling(2, 0.4, 99))) == [["a", "b"], ["a", "b"]]
    assert asked == {
        "model": "folder",
        "dtype": "float32",
        "messages": chats,
        "sampling": [(2, 0.4, 1.0, 99, 11), (2, 0.4, 1.0, 99, 12)],
        "template": {"enable_thinking": False},
    }
