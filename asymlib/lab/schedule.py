"""Rules by which both betas follow the run. They are ours: the paper keeps its pair fixed and names that as a limitation.

Each rule gives the method's own pair back where a run is as the pair was made for. results/schedule/PROTOCOL.md says what each
corrects, as written before any run.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..methods import METHODS, Method

SMOOTHING = 0.05  # weight of the newest step: a memory of about 20 steps


class Past(NamedTuple):
    """What a rule knows before a step's update: the steps before, and smoothed means over their rollouts."""

    share: float = 0.0  # of the run's steps that are done
    accuracy: float = 0.5
    entropy: float = 1.0  # divided by that of the first step

    def after(self, share: float, accuracy: float, entropy: float) -> "Past":
        """With one more step; `entropy` divided by the first step's. The first accuracy counts whole."""
        weight = SMOOTHING if self.share else 1.0
        return Past(share, *(old + weight * (new - old) for old, new in ((self.accuracy, accuracy), (self.entropy, entropy))))


def entropy_guard(pos: float, neg: float, past: Past) -> tuple[float, float]:
    """The part of the entropy that is lost moves the pair: beta_pos up to twice its value, beta_neg down to 0."""
    lost = min(max(1.0 - past.entropy, 0.0), 1.0)
    return pos * (1.0 + lost), neg * (1.0 - lost)


def anneal(pos: float, neg: float, past: Past) -> tuple[float, float]:
    """From twice the pair's distance to GRPO's down to GRPO's; the mean over the run is the pair."""
    end, stretch = METHODS["grpo"].beta_pos, 2.0 * (1.0 - past.share)
    return max(0.0, end + stretch * (pos - end)), max(0.0, end + stretch * (neg - end))


def accuracy_balance(pos: float, neg: float, past: Past) -> tuple[float, float]:
    """While most rollouts are wrong beta_pos is larger, once most are right beta_neg; at an accuracy of one half the pair."""
    return 2.0 * pos * (1.0 - past.accuracy), 2.0 * neg * past.accuracy


RULES: dict[str, Callable[[float, float, Past], tuple[float, float]]] = {
    rule.__name__: rule for rule in (entropy_guard, anneal, accuracy_balance)
}


def scheduled(method: Method, rule: str | None, past: Past) -> Method:
    """The method with the betas that hold in the next step; without a rule the method itself."""
    if rule is None:
        return method
    pos, neg = RULES[rule](method.beta_pos, method.beta_neg, past)
    return method.model_copy(update={"beta_pos": pos, "beta_neg": neg})
