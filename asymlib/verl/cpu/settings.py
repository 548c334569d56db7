"""verl without an accelerator: the profile `cpu`, in which a policy exported from the lab trains on its task, and a rehearsal
with a stand-in. The machine and the data replace settings of the GPU profile, and nothing of the algorithm does.
"""

import os
from pathlib import Path

from ...runs.policies import located
from ...runs.spec import ExperimentSpec
from ...support.files import read_json
from ...support.yaml12 import read_yaml
from ..setting import Machine

SAMPLES = 5  # of Avg@k
STAND_IN = "ASYMLIB_STAND_IN"  # set in a rehearsal on a CPU: the folder of the stand-in for the spec's policy
STAND_IN_TOKENS = 640  # of a micro-batch: a prompt and a response at least
ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "asymlib.verl.cpu.platform",
    "VERL_ENGINE_DEVICE": "cuda",  # the name that the FSDP engine is registered under; it runs on the platform's device
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def data_folder(spec: ExperimentSpec) -> Path:
    """Where `asymlib export` put the task's problems. Raises ValueError if it did not."""
    data = Path(located(spec.policy)) / "data"
    if not (data / "benchmarks.json").is_file():
        raise ValueError(f"policy={spec.policy!r}: profile 'cpu' trains a folder that `asymlib export` wrote")
    return data


def benchmarks(spec: ExperimentSpec) -> list[str]:
    """The held-out sets of the exported task; the first selects the checkpoint, as in the lab."""
    return read_json(data_folder(spec) / "benchmarks.json")


def rows(spec: ExperimentSpec, machine: Machine) -> list[tuple]:
    """What replaces the settings of the GPU profile for a policy of the lab: key, value, source."""
    data, task = data_folder(spec), "the task"
    return [
        ("data.train_files", str(data / "train.parquet"), task),
        ("data.val_files", [str(data / f"{name}.parquet") for name in benchmarks(spec)], task),
        ("data.max_prompt_length", 16, task),
        ("reward.custom_reward_function.path", "pkg://asymlib.lab.export", task),
        *_machine(machine),
    ]


def stand_in_rows(spec: ExperimentSpec, machine: Machine) -> list[tuple]:
    """The same for a rehearsal: data, lengths and reward stay those of the GPU profile."""
    size = "a stand-in's logits"
    tokens = ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", STAND_IN_TOKENS, size)
    return [("actor_rollout_ref.model.path", os.environ[STAND_IN], "a stand-in, see standin.py"), tokens, *_machine(machine)]


def _machine(machine: Machine) -> list[tuple]:
    """Tiny policies on a CPU: cpu.yaml and, without a cluster's address, the Ray that a run starts."""
    size = "a tiny policy"
    own_ray = [
        ("+ray_kwargs.ray_init.num_gpus", machine.gpus_per_node, "Ray's logical count, see cpu/platform.py"),
        ("ray_kwargs.ray_init.num_cpus", 4 + 8 * machine.gpus_per_node, "verl's actors each ask for one; they mostly wait"),
        ("+ray_kwargs.ray_init.object_store_memory", 200_000_000, size),
        ("+ray_kwargs.ray_init.include_dashboard", False, size),
    ]
    return [
        *((key, *row) for key, row in read_yaml(Path(__file__).parents[1] / "cpu.yaml").items()),
        *([] if machine.ray_address else own_ray),
    ]
