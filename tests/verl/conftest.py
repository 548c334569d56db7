"""The launch's stand-in for verl."""

from contextlib import contextmanager

import pytest
from tiny_launch import SPEC, write_step

from asymlib.evaluation import evaluate
from asymlib.verl import launch


@pytest.fixture
def verl(monkeypatch, tmp_path):
    """Replaces verl by `verl.steps(folder, first step)`, its status by `verl.status`, the evaluation by one entry."""

    class Verl:
        status, overrides, evaluated = 0, [], []

        @staticmethod
        def steps(folder, first):
            for step in range(first, SPEC.steps + 1):
                write_step(folder, step)

    @contextmanager
    def main_ppo(overrides, log, variables):
        Verl.overrides.append(dict(o.lstrip("+").split("=", 1) for o in overrides))
        log.write_text("a first line\nthe last words\n")
        path = Verl.overrides[-1]["trainer.resume_from_path"]
        Verl.steps(log.parent, 1 if path == "null" else int(path.rsplit("_", 1)[1]) + 1)
        yield type("Process", (), {"poll": lambda _: Verl.status})()

    def evaluate_(checkpoint, benchmarks, **settings):
        Verl.evaluated.append((checkpoint, tuple(benchmarks), settings))
        step = int(checkpoint.name.rsplit("_", 1)[1])
        return [
            {
                "benchmark": "math-500",
                "checkpoint": settings["label"],
                "step": step,
                "temperature": 0.4,
                "samples": 5,
                "correct": [5],
            }
        ]

    Verl.overrides, Verl.evaluated = [], []
    monkeypatch.setattr(launch, "_main_ppo", main_ppo)
    monkeypatch.setattr(evaluate, "evaluate", evaluate_)
    return Verl
