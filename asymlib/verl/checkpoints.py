"""A run's checkpoints as verl writes them: which are there and whole, on how many GPUs they go on, which are removed.

<record>/checkpoints/global_step_<n>/actor/<part>_world_size_<ranks>_rank_<k>.pt    model, optim, extra_state: to go on
<record>/checkpoints/global_step_<n>/actor/huggingface/                             weights: to evaluate
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .setting import Machine


def checkpoint_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"global_step_{step}"


def is_whole(checkpoint: Path) -> bool:
    """Whether it has tensors, and none lost its content to a power cut."""
    sizes = [path.stat().st_size for path in checkpoint.rglob("*.pt")]
    return bool(sizes) and all(sizes)


def refuse_other_ranks(checkpoint: Path | None, machine: Machine) -> None:
    """Raise ValueError for a checkpoint in another number of parts than there are GPUs now: verl would miss a file."""
    parts = checkpoint.glob("actor/model_world_size_*_rank_*.pt") if checkpoint else ()
    wrote = {int(path.name.split("_")[3]) for path in parts}
    if wrote - {gpus := machine.nodes * machine.gpus_per_node}:
        raise ValueError(
            f"{checkpoint}: written by {max(wrote)} GPUs, and there are {gpus} now: "
            f"take {max(wrote)} to go on, or delete the run's folder to start anew"
        )


def keep_weights(folder: Path, best: int) -> None:
    """Of a finished run keep the best checkpoint's Hugging Face weights: the rest is what only training needs."""
    remove_checkpoints(folder, lambda step: step != best)
    for path in checkpoint_of(folder, best).rglob("*.pt"):
        path.unlink()


def steps_there(folder: Path) -> Iterator[int]:
    """The steps whose checkpoints are there."""
    names = (path.name.removeprefix("global_step_") for path in (folder / "checkpoints").glob("global_step_*"))
    return (int(name) for name in names if name.isdecimal())


def remove_checkpoints(folder: Path, unwanted: Callable[[int], bool]) -> None:
    for step in list(steps_there(folder)):
        if unwanted(step):
            shutil.rmtree(checkpoint_of(folder, step))
