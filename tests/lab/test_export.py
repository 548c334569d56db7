"""One policy in every engine: the same tokens, the same log-probs, the same reward."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from asymlib.lab.export import compute_score, export_policy, to_hugging_face
from asymlib.lab.policy import Policy, token_log_probs
from asymlib.lab.sampler import sample
from asymlib.lab.tasks import EOS, TASKS, to_text
from asymlib.lab.tasks import walk as task
from asymlib.lab.warmup import load_warm_policy
from asymlib.verl.cpu.settings import ENVIRONMENT

RESULTS = Path(__file__).parents[2] / "results"  # its warm-up checkpoints are committed
VERL = Path(__file__).parents[1] / "engine_log_probs.py"


@pytest.fixture(scope="module")
def folder(warm_results, tmp_path_factory):
    return export_policy("small", 0, warm_results, tmp_path_factory.mktemp("export") / "small")


@pytest.fixture(scope="module")
def rollouts():
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        return sample(load_warm_policy("small", 0, RESULTS), task.training_prompts(16, generator), 4, generator)


@torch.no_grad()
def lab_log_probs(policy, r):
    return token_log_probs(policy, *(part.clone() for part in (r.prompts, r.tokens, r.lengths)), r.prompt_of_rollout)[0]


@torch.no_grad()
def transformers_log_probs(model, rollouts):
    ids = torch.cat([rollouts.prompts[rollouts.prompt_of_rollout], rollouts.tokens], 1)
    logits = model.eval()(ids).logits[:, task.PROMPT_TOKENS - 1 : -1]
    return logits.log_softmax(-1).gather(-1, rollouts.tokens[..., None]).squeeze(-1)


@pytest.mark.parametrize("name", ["small", "base"])
def test_transformers_computes_the_labs_log_probs(name, rollouts):
    policy = Policy(name, 1)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(8)  # a policy fresh from its seed is nearly uniform and would hide a wrong rotary or norm
    ours, theirs = lab_log_probs(policy, rollouts), transformers_log_probs(to_hugging_face(policy), rollouts)
    assert ours[rollouts.mask].std() > 1
    torch.testing.assert_close(theirs[rollouts.mask], ours[rollouts.mask], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_lab_transformers_and_verl_agree_on_one_policy(rollouts, tmp_path):
    r, folder = rollouts, export_policy("small", 0, RESULTS, tmp_path / "policy")
    prompts = r.prompts[r.prompt_of_rollout]
    save_file({"prompts": prompts, "responses": r.tokens, "lengths": r.lengths}, tmp_path / "tokens.safetensors")
    command = [sys.executable, str(VERL), str(folder), str(tmp_path / "tokens.safetensors"), str(tmp_path / "out.safetensors")]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    verl = load_file(tmp_path / "out.safetensors")["log_probs"]
    lab = lab_log_probs(load_warm_policy("small", 0, RESULTS), r)
    hugging_face = transformers_log_probs(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), r)
    for theirs in (verl, hugging_face):
        torch.testing.assert_close(theirs[r.mask], lab[r.mask], rtol=0, atol=1e-4)
    torch.testing.assert_close(lab[r.mask], r.log_probs[r.mask], rtol=0, atol=1e-4)  # and the sampler's own


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_exported_with_its_tokens_its_sets_and_its_reward(name, warm_results, tmp_path):
    task, folder = TASKS[name], export_policy("small", 0, warm_results, tmp_path / name, name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(task.VOCABULARY) and tokenizer.eos_token_id == tokenizer.pad_token_id == EOS
    for tokens in task.training_prompts(50, torch.Generator().manual_seed(1)):
        chat = [{"role": "user", "content": to_text(task, tokens)}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == tokens.tolist() and tokenizer.decode(ids) == to_text(task, tokens)
    with pytest.raises(Exception, match="Missing"):
        tokenizer("forty-two")

    train = pd.read_parquet(folder / "data" / "train.parquet")
    assert set(train) == {"data_source", "prompt", "ability", "reward_model", "extra_info"} and len(train) == 4096
    held_out, sets = set(), task.benchmark_prompts()
    assert json.loads((folder / "data" / "benchmarks.json").read_text()) == list(sets)
    for benchmark, prompts in sets.items():
        rows = pd.read_parquet(folder / "data" / f"{benchmark}.parquet")
        texts = [chat[0]["content"] for chat in rows.prompt]
        assert (rows.data_source == benchmark).all() and len(texts) == 50
        assert set(texts) <= {to_text(task, p) for p in prompts}
        held_out |= set(texts)
    assert not held_out & {chat[0]["content"] for chat in train.prompt}

    demos = task.demonstrations(100, torch.Generator().manual_seed(3))
    for prompt, tokens, n, reward in zip(*demos, task.reward(*demos[:2]), strict=True):
        text = tokenizer.decode(tokens[:n], skip_special_tokens=True)
        for source in (train.data_source[0], next(iter(sets))):
            assert compute_score(source, text, to_text(task, prompt), {}) == reward


def test_the_reward_is_the_labs(folder, rollouts):
    tokenizer, generator = AutoTokenizer.from_pretrained(folder), torch.Generator().manual_seed(3)
    demos = task.demonstrations(200, generator)
    r = rollouts
    prompts = torch.cat([demos.prompts, r.prompts[r.prompt_of_rollout]])
    responses, lengths = torch.cat([demos.responses, r.tokens]), torch.cat([demos.lengths, r.lengths])
    expected = task.reward(prompts, responses)
    assert 0.3 < expected.mean() < 0.9
    for prompt, tokens, length, reward in zip(prompts, responses, lengths, expected, strict=True):
        text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
        assert compute_score("walk-mix", text, to_text(task, prompt), {}) == reward


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("x+1 5 x+1 6", 1),
        ("x+1 5 x+1 7", 0),  # 5 + 1 is 6
        ("", 0),
        ("x+1 5 x+1 6 " + "x-1 5 x+1 6 " * 2, 1),  # six moves and <eos> fill the 13 tokens
        ("x+1 5 x+1 6 " + "x-1 5 x+1 6 " * 2 + "x+1", 0),  # 13 words: no room was left for <eos>
        ("the answer is 6", 0),
        ("x+1 5 " * 1000, 0),
    ],
)
def test_rewards_by_hand(response, reward):
    assert compute_score("walk-train", response, "4 6 x+1 x-1 2x :") == reward


def test_a_folder_that_exists_is_left_alone(folder, warm_results):
    before = json.loads((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match="exists already"):
        export_policy("small", 0, warm_results, folder)
    assert json.loads((folder / "config.json").read_bytes()) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_command_line_exports_and_refuses_in_a_sentence(warm_results, tmp_path):
    command = [sys.executable, "-m", "asymlib", "export", "--results", str(warm_results)]
    done = subprocess.run([*command, "small", str(tmp_path / "small")], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "small") and (tmp_path / "small" / "data").is_dir()
    done = subprocess.run([*command, "smal", str(tmp_path / "other")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "asymlib: unknown lab policy 'smal': did you mean 'small'?\n"
