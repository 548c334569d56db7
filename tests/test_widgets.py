"""Live training, driven as the widget's buttons and sliders drive it: start, watch, stop, change beta, go on."""

import threading
import time

import pytest
import tiny_lab
import torch

from asymlib.interactive import training
from asymlib.interactive.training import LiveTraining, Sample

pytestmark = pytest.mark.usefixtures("small_lab")


@pytest.fixture
def live(warm_results):
    made = []

    def make(**fields) -> LiveTraining:
        made.append(LiveTraining(results=warm_results, **fields))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def weights(one: LiveTraining) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in one._state.policy.parameters()]).clone()


def test_start_watch_stop_change_go_on(live):
    one = live(method="asymgrpo")
    assert not one.is_running and one.history == []
    one.start()
    one.wait(step=2)
    assert one.is_running
    one.stop()
    done = len(one.history)
    assert not one.is_running and done >= 2
    stopped_at = weights(one)
    time.sleep(0.3)
    assert len(one.history) == done and torch.equal(weights(one), stopped_at)

    one.change(beta_neg=0.75)
    assert torch.equal(weights(one), stopped_at)  # a change keeps the weights
    one.start()
    one.wait(step=done + 2)
    one.stop()
    assert [m["variant"] for m in one.history[: done + 2]] == ["asymgrpo"] * done + ["asymgrpo beta_neg=0.75"] * 2
    assert [m["step"] for m in one.history] == list(range(1, len(one.history) + 1))
    assert not torch.equal(weights(one), stopped_at)


def test_a_change_while_it_runs(live):
    one = live(method="grpo")
    one.start()
    one.wait(step=1)
    one.change("reinforce")
    at = len(one.history)
    one.wait(step=at + 2)  # the step that was being done, then one of the new method
    assert one.is_running and one.history[at + 1]["variant"] == "reinforce"


def test_changes_of_one_method_add_up_and_a_new_method_drops_them(live):
    one = live(method="asymgrpo", beta_pos=0.7)
    one.change(beta_neg=0.2)
    assert one.spec.method_changes == {"beta_pos": 0.7, "beta_neg": 0.2}
    one.change("grpo")
    assert one.spec.variant == "grpo"


def test_live_training_is_the_labs_training(live, warm_results):
    """Unchanged, its steps are those of a recorded run with the same seed."""
    from asymlib import make_spec, run_experiment

    one = live(method="grpo", seed=3)
    one.start()
    one.wait(step=3)
    record = run_experiment(make_spec(method="grpo", seed=3, steps=3), warm_results)
    for mine, its in zip(one.history, record.metrics.to_dict("records"), strict=False):
        assert mine["entropy"] == pytest.approx(its["entropy"], rel=1e-5)
        assert mine["reward"] == pytest.approx(its["reward"], rel=1e-5)


def test_the_kernel_is_free_while_it_trains(live):
    one = live()
    one.start()
    assert one.is_running  # it trains until it is told to stop, and start has returned
    assert one._thread is not threading.main_thread() and one._thread.daemon
    one.start()  # a second press changes nothing
    assert sum(thread.name == "asymlib live training" for thread in threading.enumerate()) == 1


def test_samples_are_rollouts_with_their_entropy(live):
    one = live()
    one.start()
    one.wait(step=1)
    one.stop()
    assert len(one.samples) >= training.SHOWN_ROLLOUTS
    for s in one.samples:
        assert isinstance(s, Sample) and s.prompt.endswith(":") and len(s.tokens) == len(s.entropy) > 0
        assert all(0 <= h <= 3.8 for h in s.entropy)  # log of 41 tokens


def test_restart_goes_back_to_the_start(live):
    one = live()
    one.start()
    one.wait(step=2)
    first = [m["entropy"] for m in one.history[:2]]
    one.restart()
    assert one.history == [] and one.samples == [] and not one.is_running
    one.start()
    one.wait(step=2)
    assert [m["entropy"] for m in one.history[:2]] == first


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(method="grop"), "unknown method 'grop': did you mean 'grpo'"),
        (dict(beta_pos=-1), "beta_pos=-1"),
        (dict(beta_poss=1), "beta_pos"),
    ],
)
def test_a_wrong_change_is_refused_and_changes_nothing(live, change, message):
    one = live()
    before = one.spec
    with pytest.raises(ValueError, match=message):
        one.change(**change)
    assert one.spec is before


def test_a_policy_of_another_engine_is_refused(warm_results):
    with pytest.raises(ValueError, match="live training needs a policy of the lab"):
        LiveTraining(policy="Qwen/Qwen3-4B", results=warm_results)


def test_a_collapse_is_shown_and_ends_it(live, monkeypatch):
    one = live()
    one._fixed["warmup_seed"] = tiny_lab.BROKEN
    one.change()
    one.start()
    with pytest.raises(RuntimeError, match="training ended at step 0: the policy collapsed: a log-prob is not finite"):
        one.wait(step=1)
    assert "collapsed" in one.html() and "running" not in one.html()


def test_waiting_has_an_end(live, monkeypatch):
    monkeypatch.setattr(training, "new_state", lambda *_: time.sleep(1))
    one = live()
    one.start()
    with pytest.raises(TimeoutError, match=r"step 5 not done after 0\.2 seconds"):
        one.wait(step=5, timeout=0.2)


def test_tokens_are_shaded_by_entropy_and_text_is_escaped(live):
    one = live()
    one.samples = [
        Sample("4 9 <x> :", ("2x", "8", "<eos>"), (1.2, 0.0, 9.0), True),
        Sample("1 2 x+1 :", ("x+1",), (0.75,), False),
    ]
    page = one.html()
    assert "&lt;eos&gt;" in page and "<eos>" not in page and "<x>" not in page
    assert page.count("\u2713 right") == page.count("\u2717 wrong") == 1
    shades = [float(part.split(")")[0]) for part in page.split("rgba(230, 159, 0, ")[1:]]
    assert shades == [0.56, 0.0, 0.7, 0.35]


def test_the_widget_drives_it(warm_results):
    one = LiveTraining("asymgrpo", beta_pos=0.75, results=warm_results)
    box = training.show(one)
    (start, stop, restart), method, beta_pos, beta_neg, note, picture = box.children[0].children, *box.children[1:]
    assert "leaves no record" in note.value
    assert (method.value, beta_pos.value, beta_neg.value) == ("asymgrpo", 0.75, 0.4)
    assert one.spec.method_changes == {"beta_pos": 0.75}
    start.click()
    one.wait(step=2)
    assert one.is_running and "<svg" in picture.value and "rollout" in picture.value
    beta_neg.value = 0.1
    assert one.spec.method_changes == {"beta_pos": 0.75, "beta_neg": 0.1}
    one.wait(step=len(one.history) + 2)
    stop.click()
    assert not one.is_running and "stopped" in picture.value and "\u03b2_neg = 0.1" in picture.value
    assert "stroke-dasharray" in picture.value  # where the method changed
    method.value = "dr_grpo"
    assert beta_pos.disabled and beta_neg.disabled and one.spec.variant == "dr_grpo"
    method.value = "grpo"
    assert not beta_pos.disabled and (beta_pos.value, beta_neg.value) == (0.5, 0.5)
    restart.click()
    assert one.history == [] and "step 0" in picture.value
