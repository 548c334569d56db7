"""The plugin in a recipe of verl that is not ours: its own trainer and loggers, two overrides (docs/trainers.md)."""

import importlib.util
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asymlib import get_method, make_spec
from asymlib.lab import export
from asymlib.verl import launch
from asymlib.verl.cpu.settings import ENVIRONMENT
from asymlib.verl.setting import Machine
from asymlib.verl.settings import settings

ROOT = Path(__file__).parents[2]
STEPS = 2
MLFLOW = importlib.util.find_spec("mlflow") is not None  # none of our packages: mlflow-skinny, sqlalchemy, alembic


def recipe(policy, folder) -> list[str]:
    """A verl run on a CPU, without a word of asymlib but in what stands for the GPU and in the task's reward."""
    spec = make_spec(
        method="grpo", policy=str(policy), profile="cpu", steps=STEPS, prompts_per_step=8, prompts_per_minibatch=4,
        max_response_tokens=13, learning_rate=1.5e-4, validation_every=STEPS,
    )  # fmt: skip
    rows = settings(spec, folder, folder, Machine(1, 1))
    return [row.override for row in rows if "asymlib." not in row.name and row.value != "asymlib"]


@pytest.mark.slow
def test_two_overrides_make_any_recipe_asymgrpo_and_verl_s_loggers_work_offline(tmp_path):
    policy = export.export_policy("small", 0, ROOT / "results", tmp_path / "policy")
    given = recipe(policy, tmp_path / "run")
    assert not any("adv_estimator" in word or "trainer_mode" in word for word in given)
    command = [
        sys.executable, "-m", "verl.trainer.main_ppo", *given,
        "algorithm.adv_estimator=asymlib", "+algorithm.asymlib.method=asymgrpo",
        "trainer.logger=[console,tensorboard,wandb" + (",mlflow]" if MLFLOW else "]"),
    ]  # fmt: skip
    environment = os.environ | ENVIRONMENT | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(launch.RAY_ATTEMPTS):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        if launch.RAY_TOO_SLOW not in done.stderr:
            break
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    pos, neg = get_method("asymgrpo").table(8)
    for tag, side in (("critic/advantages/max", pos), ("critic/advantages/min", neg)):
        logged = {"tensorboard": [event.value for event in events.Scalars(tag)]}
        if MLFLOW:
            with sqlite3.connect(tmp_path / "mlflow.db") as database:
                rows = database.execute("SELECT value FROM metrics WHERE key = ? ORDER BY step", [tag]).fetchall()
            logged["mlflow"] = [value for (value,) in rows]
        for values in logged.values():
            assert len(values) == STEPS and all(min(abs(side - value)) < 1e-5 for value in values), (tag, logged)
    assert [path.stat().st_size > 1000 for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")] == [True]
