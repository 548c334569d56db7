#!/bin/bash
# h100.lock as far as a machine without a GPU can: h100_lock.sh FOLDER [PYTHON3.12], with uv on the path ($UV). Every pin with its hashes
# against the index (nothing is downloaded), then what needs neither CUDA nor its build of torch is installed into FOLDER and imported.
set -euo pipefail
folder="$1" lock="$(dirname "$(realpath "$0")")/../../requirements/h100.lock" uv="${UV:-uv}"
"$uv" venv --quiet --clear --python "${2:-python3.12}" "$folder"
into=("$uv" pip install --quiet --python "$folder/bin/python" --no-deps --require-hashes)
"${into[@]}" --dry-run --requirement "$lock"
"$folder/bin/python" - "$lock" > "$folder/without-cuda.txt" <<'PYTHON'
import re
import sys
from pathlib import Path

CUDA = r"(nvidia|cuda|torch|triton|tokenspeed|flashinfer|quack|tilelang|humming|nvtx|vllm|xgrammar|compressed|fastsafetensors|apache-tvm)"
CUDA += r"|(accelerate|depyf|mbridge|peft|qwen-vl-utils|tensordict|transferqueue|verl)=="  # they import torch
for pin in re.findall(r"^\S+==\S+ \\\n(?: .*\n?)+", Path(sys.argv[1]).read_text(), re.MULTILINE):
    if not re.match(CUDA, pin):
        print(pin, end="")
PYTHON
"${into[@]}" --requirement "$folder/without-cuda.txt"
"$folder/bin/python" -W ignore - <<'PYTHON'
import importlib
from importlib.metadata import distributions, packages_distributions

failed, modules = {}, packages_distributions()
for name in sorted(modules):
    if name.isidentifier() and not name.startswith("_"):
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{modules[name][0]}: {type(error).__name__}: {error}"
print(f"{len(list(distributions()))} packages installed, {len(modules)} modules, not imported: {failed or 'none'}")
raise SystemExit(bool(failed))
PYTHON
