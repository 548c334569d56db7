"""verl on a machine without an accelerator: a platform "cpu" and a rollout "transformers", through verl's own registries.

Each process of a CPU run imports this module (VERL_USE_EXTERNAL_MODULES); on GPUs nothing does. For tests and tiny policies.
"""

import contextlib
import types

import torch
import torch.distributed
from verl.plugin.platform import set_platform
from verl.plugin.platform.platform_base import PlatformBase
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry


class _DeviceModule(types.ModuleType):
    """Stands where verl expects torch.cuda: the calls that it makes on any device; every statistic is 0."""

    get_rng_state = staticmethod(lambda *_: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *_: torch.set_rng_state(state))
    get_device_name = staticmethod(lambda *_: "CPU")
    is_available = staticmethod(lambda: False)  # verl then leaves memory statistics alone
    mem_get_info = staticmethod(lambda *_: (0, 0))

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(torch.cpu, name, lambda *_, **__: 0)


class CPU(PlatformBase):
    device_name, vendor_name = "cpu", "generic"
    device_module = _DeviceModule("asymlib_cpu_device")

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return "GPU"  # a logical count of Ray's; no device is needed

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


def _init_process_group(backend=None, *args, _original=torch.distributed.init_process_group, **kwargs):
    """verl asks for "cpu:gloo,<device>:<backend>", and torch refuses a device named twice."""
    if isinstance(backend, str):
        backend = ",".join(dict.fromkeys(backend.split(",")))
    return _original(backend, *args, **kwargs)


def _replica_class():
    from .rollout import TransformersReplica

    return TransformersReplica


set_platform(CPU())
torch.distributed.init_process_group = _init_process_group
torch.Tensor.pin_memory = lambda self, *_, **__: self  # pinning is for copies to an accelerator
_ROLLOUT_REGISTRY[("transformers", "async")] = "asymlib.verl.cpu.rollout.ServerAdapter"
RolloutReplicaRegistry.register("transformers", _replica_class)
