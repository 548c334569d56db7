"""What verl loads in each of its processes (entry-point group `verl.plugins`): registers estimator and trainer `asymlib`."""

from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from . import estimator, trainer

__all__ = ["assert_registered", "estimator", "trainer"]


def assert_registered() -> None:
    """Raise RuntimeError unless verl knows both names in this process: verl hides the error of a plugin that fails to load."""
    for kind, registry in (("advantage estimator", ADV_ESTIMATOR_REGISTRY), ("trainer", TRAINER_REGISTRY)):
        if estimator.NAME not in registry:
            raise RuntimeError(f"verl has no {kind} {estimator.NAME!r}: its plugin did not load in this process")
