"""How fast the lab rolls out and updates, and what share of that time its matrix products alone would take.

One training step's shapes: P = 32 prompts of L = 6 tokens, G = 8 rollouts of at most T = 13 tokens, 4 mini-batches.
"""

import statistics
from collections.abc import Callable

import torch
from common import conditions, interleaved, median_ratio, report

from asymlib import group_advantages, make_spec
from asymlib.lab import task
from asymlib.lab.policy import SHAPES, Policy, Shape
from asymlib.lab.sampler import Rollouts, sample
from asymlib.lab.step import AdamW, _lanes, _update

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


def rollout_products(shape: Shape, rollouts: Rollouts) -> tuple[list, int]:
    """Prefill of the prompts once, then one row per rollout that still goes on."""
    prompts, pairs, operations = len(rollouts.prompts), [], 0
    head = (shape.width, VOCABULARY)
    parts = [(linear_layers(shape), prompts * PROMPT_TOKENS), ([head], len(rollouts.tokens))]
    for t in range(1, int(rollouts.lengths.max())):
        parts.append(([*linear_layers(shape), head], int((rollouts.lengths > t).sum())))
    for layers, rows in parts:
        more, count = products(layers, rows, backward=False)
        pairs, operations = pairs + more, operations + count
    return pairs, operations


def update_products(shape: Shape, rollouts: Rollouts, minibatches: int) -> tuple[list, int]:
    """Per mini-batch: each prompt once, then all response tokens but the last; forward and backward."""
    prompts = len(rollouts.prompts) // minibatches
    later = int((rollouts.lengths - 1).sum()) // minibatches
    body, body_operations = products(linear_layers(shape), prompts * PROMPT_TOKENS + later, backward=True)
    head, head_operations = products([(shape.width, VOCABULARY)], prompts + later, backward=True)
    return (body + head) * minibatches, (body_operations + head_operations) * minibatches


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
    policy = Policy(name)
    optimizer, lanes = AdamW(policy), _lanes([spec], stacked=False)
    generator = torch.Generator().manual_seed(0)
    prompts = task.training_prompts(spec.prompts_per_step, generator)

    def roll_out() -> Rollouts:
        return sample(policy, prompts, spec.group_size, torch.Generator().manual_seed(0))

    rollouts = roll_out()
    rewards = torch.randint(2, (len(rollouts.tokens),), generator=generator).float()  # a random policy earns none
    advantages = group_advantages(rewards, rollouts.prompt_of_rollout, spec.resolved_method)
    shape, minibatches = SHAPES[name], spec.prompts_per_step // spec.prompts_per_minibatch
    rollout_pairs, rollout_operations = rollout_products(shape, rollouts)
    update_pairs, update_operations = update_products(shape, rollouts, minibatches)

    parts = {
        "rollout": roll_out,
        "rollout products": lambda: multiply(rollout_pairs),
        "update products": lambda: multiply(update_pairs),
        "update": lambda: _update(spec, lanes, policy, optimizer, spec.learning_rate, rollouts, advantages, [generator]),
    }
    seconds = interleaved(parts, REPEATS)
    profiles = [{"policy": name, "part": part} | where_time_goes(parts[part]) for part in ("rollout", "update")]
    rows = []
    for part, operations in (("rollout", rollout_operations), ("update", update_operations)):
        median, alone = statistics.median(seconds[part]), statistics.median(seconds[f"{part} products"])
        rows.append(
            {
                "policy": name,
                "parameters": sum(weight.numel() for weight in policy.parameters()),
                "part": part,
                "tokens": int(rollouts.lengths.sum()),
                "tokens per CPU second": int(rollouts.lengths.sum()) / median,
                "GFLOP/s": operations / median / 1e9,
                "GEMM peak, GFLOP/s": operations / alone / 1e9,
                "share of peak": median_ratio(seconds[f"{part} products"], seconds[part]),
            }
        )
    return rows, profiles


if __name__ == "__main__":
    torch.set_num_threads(1)
    about = conditions(REPEATS)
    with torch.random.fork_rng():
        measured = [measure(name) for name in SHAPES]
    report("lab_step", "One training step of the lab", [row for rows, _ in measured for row in rows], about)
    profile = [row for _, rows in measured for row in rows]
    report("lab_step_profile", "Where its time goes, shares of CPU time", profile, about)
