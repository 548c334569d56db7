"""Beside asymlib.verl.cpu.platform in VERL_USE_EXTERNAL_MODULES: its rollout answers nothing."""

import time

from verl.workers.rollout.replica import RolloutReplicaRegistry


def _replica_class():
    from asymlib.verl.cpu import rollout

    class Hanging(rollout.Server):
        def sample(self, prompts, seeds, temperature):
            print("a rollout that hangs", flush=True)
            time.sleep(3600)

    class Replica(rollout.TransformersReplica):
        server_class = Hanging

    return Replica


RolloutReplicaRegistry.register("transformers", _replica_class)
