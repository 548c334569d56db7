"""Beside asymlib.verl.cpu.platform in VERL_USE_EXTERNAL_MODULES: of some prompts the second rollout fails."""

from verl.workers.rollout.replica import RolloutReplicaRegistry


def fails(prompt_ids: list[int]) -> bool:
    return sum(prompt_ids) % 2 == 0


def _replica_class():
    from asymlib.verl.cpu import rollout

    class Failing(rollout.Server):
        async def number(self, prompt_ids, step):
            number = await super().number(prompt_ids, step)
            if number == 2 and fails(prompt_ids):  # a validation asks once
                raise RuntimeError("a rollout that fails")
            return number

    class Replica(rollout.TransformersReplica):
        server_class = Failing

    return Replica


RolloutReplicaRegistry.register("transformers", _replica_class)
