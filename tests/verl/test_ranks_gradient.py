"""verl's engine over 2 and 4 ranks (FSDP2, gloo) against one process: each token's entropy, the gradient of each loss."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from recompute import Row, recompute
from safetensors.torch import load_file
from tiny_chat import WORDS, write_checkpoint
from transformers import AutoModelForCausalLM
from verl_engine import free_port, ranks_environment

from asymlib.verl.cpu.settings import ENVIRONMENT

SCRIPT = Path(__file__).parents[1] / "engine_gradient.py"
DEADLINE = 900  # seconds; half a minute on two idle cores, many times that on busy ones
RESPONSE_TOKENS, EOS = 40, 1
ROWS = 11  # 2 ranks need one row of padding, 4 ranks too
FEW, MANY = 192, 8192  # tokens of a micro-batch: several of them, of unlike numbers of rows, or one
CASES = [
    {"loss_aggregation": aggregation, "entropy_coeff": coefficient, "tokens": tokens}
    for aggregation, coefficient, tokens in product(["token-mean", "seq-mean-token-sum-norm"], [0.0, 0.03], [FEW, MANY])
]


def rows() -> list[Row]:
    """Uneven ones: prompts of 3 to 60 tokens, responses of 1 to 40."""
    generator = torch.Generator().manual_seed(0)

    def ids(n):
        return torch.randint(2, len(WORDS), (n,), generator=generator).tolist()

    lengths = [(3 + 57 * i // (ROWS - 1), 1 + (39 * 7 * i) % 40) for i in range(ROWS)]
    return [Row(ids(p), ids(r), torch.randn(1, generator=generator).item()) for p, r in lengths]


def over_ranks(ranks: int, checkpoint: Path, folder: Path) -> dict[str, torch.Tensor]:
    """What the script's processes wrote, each row's tensors by the row's number, each case's gradient by the case's."""
    batch = {"rows": [row._asdict() for row in rows()], "cases": CASES, "response_tokens": RESPONSE_TOKENS, "eos": EOS}
    (folder / "batch.json").write_text(json.dumps(batch))
    port = free_port()
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(checkpoint), str(folder / "batch.json"), str(folder / "out")]
    logs = [(folder / f"log.{rank}").open("w+") for rank in range(ranks)]
    processes = [
        subprocess.Popen(command, env=os.environ | ENVIRONMENT | ranks_environment(ranks, rank, port), stdout=log, stderr=log)
        for rank, log in enumerate(logs)
    ]
    try:
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(DEADLINE) == 0, Path(log.name).read_text()[-3000:]
    finally:
        for process, log in zip(processes, logs, strict=True):
            process.kill()
            log.close()
    return {name: tensor for rank in range(ranks) for name, tensor in load_file(folder / f"out.{rank}").items()}


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "tied"), [(2, True), (4, True), (4, False)])
def test_ranks_have_one_process_s_entropies_and_gradients(ranks, tied, tmp_path):
    """Half a minute on two cores. Rows that do not divide, uneven ones, in one micro-batch and in several, each loss."""
    checkpoint = write_checkpoint(tmp_path / "policy", tied=tied)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    found, given = over_ranks(ranks, checkpoint, tmp_path), rows()
    padded = -(-ROWS // ranks) * ranks
    assert f"entropy/{padded - 1}" in found and f"entropy/{padded}" not in found and padded > ROWS
    for number, case in enumerate(CASES):
        how = {name: case[name] for name in ("loss_aggregation", "entropy_coeff")}
        one = recompute(model, given, response_tokens=RESPONSE_TOKENS, batch=padded, **how)
        assert one.grad_norm > 1e-3 and (found[f"{number}/micro_batches"] > 1) == (case["tokens"] == FEW)
        for name, expected in one.gradient.items():
            torch.testing.assert_close(found[f"{number}/{name}"], expected, rtol=1e-4, atol=1e-6, msg=f"{case}, {name}")
    for i in range(ROWS):
        torch.testing.assert_close(found[f"entropy/{i}"], one.entropy[i], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[f"log_prob/{i}"], one.log_prob[i], rtol=1e-5, atol=1e-5)
