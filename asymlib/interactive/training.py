"""Live training in a notebook: start, watch, stop, change a method's betas, go on from the weights as they are.

It is play and leaves no record: a run that changes its method on the way is no run of any method. `asymlib run` makes records.
"""

import threading
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import Template

from ..analysis.looks import label
from ..lab.sampler import sample
from ..lab.tasks import to_text
from ..lab.trainer import Collapse, State, new_state, steps
from ..methods import CATALOGUE, CURVES
from ..runs.records import results_root
from ..runs.spec import ExperimentSpec, make_spec

ENDLESS = 10**6  # steps; a person stops it
SHOWN_PROMPTS, SHOWN_ROLLOUTS = 4, 2
FULL_ENTROPY = 1.5  # nats at which a token's shade is full
CHARTS = {"entropy": "entropy (nats per token)", "reward": "training reward"}
_TEMPLATE = Template(
    files(__package__).joinpath("training.html").read_text(), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATE.globals.update(zip=zip, full=FULL_ENTROPY)


class Sample(NamedTuple):
    """One rollout as text: its tokens with the entropy (nats) of the distributions that they were drawn from."""

    prompt: str
    tokens: tuple[str, ...]
    entropy: tuple[float, ...]
    is_right: bool


class LiveTraining:
    """Trains a lab policy in a thread of its own. `history` has a line of metrics a step, with the variant that made it."""

    def __init__(self, method="asymgrpo", *, policy="small", seed: int = 0, results: Path | None = None, **changes):
        self._fixed = {"policy": policy, "seed": seed, "steps": ENDLESS, "validation_every": ENDLESS}
        self._results = Path(results or results_root())
        self._thread = threading.Thread()
        self._stopping, self._stepped = threading.Event(), threading.Condition()
        self.on_step: Callable[[], None] = lambda: None
        self.change(method, **changes)
        self.restart()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def change(self, method: str | None = None, **changes) -> None:
        """From the next step on train with another method, or with other settings. Raises ValueError as make_spec does."""
        if method is None:
            method, changes = self.spec.method, self.spec.method_changes | changes
        spec = make_spec(method=method, **changes, **self._fixed)
        if spec.engine != "lab":
            raise ValueError(f"policy={spec.policy!r}: live training needs a policy of the lab")
        self.spec: ExperimentSpec = spec

    def start(self) -> None:
        """Go on from the weights as they are; does nothing if it runs."""
        if not self.is_running:
            self._stopping.clear()
            self.problem = None
            self._thread = threading.Thread(target=self._run, name="asymlib live training", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop after the step that is being done."""
        self._stopping.set()
        if self.is_running and self._thread is not threading.current_thread():
            self._thread.join()

    def restart(self) -> None:
        """Stop and go back to the warmed-up policy, the method as it is."""
        self.stop()
        self._state: State | None = None
        self.history: list[dict] = []
        self.samples: list[Sample] = []
        self.problem: str | None = None

    def wait(self, step: int, timeout: float = 300) -> None:
        """Block until `step` is done. Raises RuntimeError if the training ends before, TimeoutError after `timeout` seconds."""

        def has_ended() -> bool:
            return bool(self.problem) or self._stopping.is_set() or not self.is_running

        with self._stepped:
            self._stepped.wait_for(lambda: len(self.history) >= step or has_ended(), timeout)
        if len(self.history) < step and has_ended():
            raise RuntimeError(f"training ended at step {len(self.history)}: {self.problem or 'it was stopped'}")
        if len(self.history) < step:
            raise TimeoutError(f"step {step} not done after {timeout:g} seconds; at step {len(self.history)}")

    def _run(self) -> None:
        torch.set_num_threads(1)
        try:
            if self._state is None:
                self._state = new_state(self.spec, self._results)
            while not self._stopping.is_set():
                spec = self.spec
                metrics = next(steps(spec, self._state))
                self.samples = _sample(self._state)
                self.history.append(metrics | {"variant": spec.variant})
                self._tell()
        except Collapse as error:
            self.problem = f"the policy collapsed: {error}"
        except Exception as error:  # a thread has nobody to raise to: it is shown
            self.problem = f"{type(error).__name__}: {error}"
        self._tell()

    def _tell(self) -> None:
        with self._stepped:
            self._stepped.notify_all()
        self.on_step()

    def html(self) -> str:
        """What is to be seen: entropy and reward by step, and sample rollouts with their tokens shaded by entropy."""
        state = "running" if self.is_running and not self.problem else "stopped"
        charts = {title: [line[key] for line in self.history] or [0.0] for key, title in CHARTS.items()}
        changes = [i for i, (a, b) in enumerate(pairwise(self.history), 1) if a["variant"] != b["variant"]]
        told = {"step": len(self.history), "charts": charts, "changes": changes, "points": _points}
        return _TEMPLATE.render(state=state, label=label(self.spec.variant), problem=self.problem, samples=self.samples, **told)


def _sample(state: State) -> list[Sample]:
    """Rollouts of the same few held-out prompts at every step."""
    task = state.policy.task
    prompts = task.benchmark_prompts()[task.EXPLORATION_BENCHMARK]
    prompts = prompts[:: len(prompts) // SHOWN_PROMPTS][:SHOWN_PROMPTS]
    rollouts = sample(state.policy, prompts, SHOWN_ROLLOUTS, torch.Generator().manual_seed(state.step))
    asked = prompts[rollouts.prompt_of_rollout]
    rows = zip(asked, rollouts.tokens, rollouts.entropy, rollouts.lengths, task.reward(asked, rollouts.tokens), strict=True)
    return [
        Sample(to_text(task, prompt), tuple(to_text(task, tokens[:n]).split()), tuple(entropy[:n].tolist()), bool(right))
        for prompt, tokens, entropy, n, right in rows
    ]


def _points(values: list[float]) -> list[tuple[float, float]]:
    """x and y in 0..1 of at most 401 of a curve's values, the last among them."""
    low, high = min(values), max(values)
    shown = sorted({*range(0, len(values), len(values) // 400 + 1), len(values) - 1})
    return [(i / max(len(values) - 1, 1), (values[i] - low) / (high - low or 1)) for i in shown]


def show(training: LiveTraining | None = None):
    """The controls and the picture as a Jupyter widget; its `training` can be driven from other cells."""
    import ipywidgets as widgets

    training = training or LiveTraining()
    changes, methods = training.spec.method_changes, [(m.label, m.name) for m in CATALOGUE.values()]
    method = widgets.Dropdown(options=methods, value=training.spec.method, description="method")
    sliders = {
        f"beta_{side}": widgets.FloatSlider(
            min=0, max=1.5, step=0.05, description=f"\u03b2<sub>{side}</sub>", description_allow_html=True
        )
        for side in ("pos", "neg")
    }
    note = "A change holds from the next step on, with the weights as they are. This is play: it leaves no record."
    picture = widgets.HTML()

    def draw(*_) -> None:
        picture.value = training.html()

    def choose(_) -> None:
        for name, slider in sliders.items():
            slider.disabled = name not in CURVES[CATALOGUE[method.value].curve].parameters
            slider.unobserve(move, "value")
            slider.value = getattr(CATALOGUE[method.value], name) or 0
            slider.observe(move, "value")
        training.change(method.value)
        draw()

    def move(_) -> None:
        training.change(method.value, **{name: slider.value for name, slider in sliders.items() if not slider.disabled})
        draw()

    actions = {"Start / go on": training.start, "Stop": training.stop, "Back to the start": training.restart}
    buttons = [widgets.Button(description=text) for text in actions]
    for button, action in zip(buttons, actions.values(), strict=True):
        button.on_click(lambda _, action=action: draw(action()))
    choose(None)
    for name in changes.keys() & sliders:
        sliders[name].value = changes[name]
    method.observe(choose, "value")
    training.on_step = draw
    box = widgets.VBox([widgets.HBox(buttons), method, *sliders.values(), widgets.HTML(note), picture])
    box.training = training
    return box
