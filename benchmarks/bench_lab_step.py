"""How fast the lab rolls out and updates, and what share of that time its matrix products alone would take.

One training step of GRPO on the policy after warm-up: P = 32 prompts of L = 6 tokens, G = 8 rollouts of at most T = 13 tokens,
4 mini-batches. The lab computes what rollouts have in common from the beginning once; a trainer that does not, with nothing
to do but its matrix products, would take "every token's products / time" of the lab's whole time.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import conditions, interleaved, median_ratio, report

from asymlib import group_advantages, make_spec
from asymlib.lab.optimizer import AdamW
from asymlib.lab.packing import pack
from asymlib.lab.policy import SHAPES, Shape
from asymlib.lab.sampler import Rollouts, sample
from asymlib.lab.step import update
from asymlib.lab.tasks import walk as task
from asymlib.lab.trainer import keep_freed_memory
from asymlib.lab.warmup import load_warm_policy

ROOT = Path(__file__).parents[1]
REPEATS = 15
VOCABULARY, PROMPT_TOKENS = len(task.VOCABULARY), task.PROMPT_TOKENS


def linear_layers(shape: Shape) -> list[tuple[int, int]]:
    """(inputs, outputs) of every linear layer of the blocks."""
    d, hidden = shape.width, shape.hidden
    return [(d, 3 * d), (d, d), (d, 2 * hidden), (hidden, d)] * shape.layers


def products(layers: list[tuple[int, int]], rows: int, backward: bool) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], int]:
    """The operands of the layers' matrix products on `rows` rows, and their floating-point operations."""
    pairs = []
    for inputs, outputs in layers:
        x, weight, gradient = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
        pairs.append((x, weight.T))
        if backward:
            pairs += [(gradient, weight), (gradient.T, x)]  # gradients of the input and of the weight
    return pairs, sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in pairs)


def multiply(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for a, b in pairs:
        a @ b


def rollout_products(shape: Shape, rollouts: Rollouts, shared: bool) -> tuple[list, int]:
    """Prefill of the prompts once, then one row per rollout that still goes on, or per beginning if those alike share it."""
    prompts, pairs, operations = len(rollouts.prompts), [], 0
    head = (shape.width, VOCABULARY)
    first = prompts if shared else len(rollouts.tokens)
    parts = [(linear_layers(shape), prompts * PROMPT_TOKENS), ([head], first)]
    for t in range(1, int(rollouts.lengths.max())):
        going = rollouts.lengths > t
        beginnings = torch.cat([rollouts.prompt_of_rollout.unsqueeze(1), rollouts.tokens[:, :t]], 1)[going]
        parts.append(([*linear_layers(shape), head], len(beginnings.unique(dim=0)) if shared else len(beginnings)))
    for layers, rows in parts:
        more, count = products(layers, rows, backward=False)
        pairs, operations = pairs + more, operations + count
    return pairs, operations


def update_products(shape: Shape, rollouts: Rollouts, minibatches: int, shared: bool) -> tuple[list, int]:
    """Per mini-batch: each prompt once, then all response tokens but the last, or each beginning once; forward and backward."""
    later = int((rollouts.lengths - 1).sum())
    rows = rollouts.prompts.numel() + later
    if shared:
        rows = len(pack(PROMPT_TOKENS, rollouts.tokens, rollouts.lengths, rollouts.prompt_of_rollout).slots)
    pairs, operations = products([*linear_layers(shape), (shape.width, VOCABULARY)], rows // minibatches, backward=True)
    return pairs * minibatches, operations * minibatches


# What torch.profiler calls by these names, and what it is here.
OPERATIONS = {
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "attention (fused kernel)": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "elementwise, softmax, norms, sums": (
        *("aten::mul", "aten::add", "aten::add_", "aten::div", "aten::exp", "aten::silu", "aten::silu_backward", "aten::sum"),
        *("aten::native_layer_norm", "aten::native_layer_norm_backward", "aten::_softmax", "aten::_log_softmax"),
        *("aten::_log_softmax_backward_data", "aten::linalg_vecdot", "aten::cumsum", "aten::neg", "aten::clamp", "aten::where"),
    ),
    "copies, gathers, scatters": (
        *(
            "aten::copy_",
            "aten::cat",
            "aten::index_select",
            "aten::index",
            "aten::index_add_",
            "aten::index_copy_",
            "aten::fill_",
        ),
        *("aten::gather", "aten::scatter_add_", "aten::index_put_", "aten::_index_put_impl_", "aten::scatter"),
    ),
    "AdamW": ("aten::_fused_adamw_",),
}


def where_time_goes(part: Callable[[], object]) -> dict[str, float]:
    """Shares of the part's CPU time by kind of operation (torch.profiler); the rest is dispatch, autograd and Python."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            part()
    seconds = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(seconds.values())
    shares = {kind: sum(seconds.get(name, 0) for name in names) / total for kind, names in OPERATIONS.items()}
    return shares | {"dispatch, autograd, Python": 1 - sum(shares.values())}


def measure(name: str) -> tuple[list[dict], list[dict]]:
    """Rows of speed, and of where the time goes."""
    spec = make_spec(method="grpo", policy=name)
    policy = load_warm_policy(name, 0, ROOT / "results")
    optimizer = AdamW(policy)
    prompts = task.training_prompts(spec.prompts_per_step, torch.Generator().manual_seed(0))

    def roll_out() -> Rollouts:
        return sample(policy, prompts, spec.group_size, torch.Generator().manual_seed(0))

    rollouts = roll_out()
    rewards = task.reward(prompts[rollouts.prompt_of_rollout], rollouts.tokens)
    advantages = group_advantages(rewards, rollouts.prompt_of_rollout, spec.resolved_method)
    shape, minibatches = SHAPES[name], spec.prompts_per_step // spec.prompts_per_minibatch

    def train() -> None:  # a vanishing learning rate: every repeat updates the same policy
        update(spec, policy, optimizer, 1e-12, rollouts, advantages, torch.Generator().manual_seed(0))

    parts: dict[str, Callable[[], object]] = {"rollout": roll_out, "update": train}
    operations = {}
    for shared in (True, False):
        kind = "its products" if shared else "every token's products"
        pairs, operations[f"rollout, {kind}"] = rollout_products(shape, rollouts, shared)
        parts[f"rollout, {kind}"] = partial(multiply, pairs)
        pairs, operations[f"update, {kind}"] = update_products(shape, rollouts, minibatches, shared)
        parts[f"update, {kind}"] = partial(multiply, pairs)
    seconds = interleaved(parts, REPEATS)
    profiles = [{"policy": name, "part": part} | where_time_goes(parts[part]) for part in ("rollout", "update")]
    rows = []
    for part in ("rollout", "update"):
        its, alone = operations[f"{part}, its products"], seconds[f"{part}, its products"]
        rows.append(
            {
                "policy": name,
                "parameters": sum(weight.numel() for weight in policy.parameters()),
                "part": part,
                "tokens": int(rollouts.lengths.sum()),
                "tokens per CPU second": int(rollouts.lengths.sum()) / statistics.median(seconds[part]),
                "GFLOP/s": its / statistics.median(seconds[part]) / 1e9,
                "GEMM peak, GFLOP/s": its / statistics.median(alone) / 1e9,
                "share of peak": median_ratio(alone, seconds[part]),
                "every token's products / time": median_ratio(seconds[f"{part}, every token's products"], seconds[part]),
            }
        )
    return rows, profiles


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    about = conditions(REPEATS)
    with torch.random.fork_rng():
        measured = [measure(name) for name in SHAPES]
    report("lab_step", "One training step of the lab", [row for rows, _ in measured for row in rows], about)
    profile = [row for _, rows in measured for row in rows]
    report("lab_step_profile", "Where its time goes, shares of CPU time", profile, about)
