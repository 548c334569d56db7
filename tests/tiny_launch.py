"""What verl's trainer writes in a run's folder, for the launch without verl."""

from asymlib import make_spec, run_experiment
from asymlib.runs.lines import append_sealed
from asymlib.runs.records import run_folder

SPEC = make_spec(method="asymgrpo", policy="Qwen/Qwen3-4B", steps=6, validation_every=2)
ACCURACY = {2: 0.25, 4: 0.5, 6: 0.5}  # on math-500


def entry(step, **more):
    metrics = {"step": step, "reward": step / 10, "log_prob_increment_pos": None}
    if step in ACCURACY:
        metrics |= {"val_acc": 0.1, "val_acc/math-500": ACCURACY[step]}
    return {"metrics": metrics | more, "covariance": [[0.5, step / 100]]}


def write_step(folder, step, **more):
    if step % 2 == 0:
        write_checkpoint(folder, step)
    append_sealed(folder / "steps.jsonl", entry(step, **more))


PARTS = ("model_world_size_4_rank_0.pt", "optim_world_size_4_rank_0.pt", "huggingface/model.safetensors")


def write_checkpoint(folder, step):
    for part in PARTS:
        path = folder / "checkpoints" / f"global_step_{step}" / "actor" / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"tensors")


def folder_of(tmp_path):
    return run_folder(SPEC, tmp_path / "results").resolve()


def run(tmp_path, on_step=lambda metrics: None):
    return run_experiment(SPEC, tmp_path / "results", on_step)
