"""What made a record: commit, package versions and machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("asymlib", "numpy", "pandas", "torch", "transformers", "verl", "vllm")
_VECTOR_FLAGS = ("sse4", "avx", "fma", "amx", "asimd", "sve")  # of x86 and ARM


def collect_provenance() -> dict[str, Any]:
    """The commit (and the hash of what differs from it inside asymlib/), package versions and machine.

    Raises RuntimeError when the commit cannot be told: a record must say what code made it.
    """
    code = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(code)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "diff", "HEAD", "--", "asymlib"], capture_output=True, check=True).stdout
        untracked = [*git, "ls-files", "--others", "--exclude-standard", "--", "asymlib"]
        for name in subprocess.run(untracked, capture_output=True, text=True, check=True).stdout.splitlines():
            changed += name.encode() + (code / name).read_bytes()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"provenance: {code} is not a git checkout with a commit, so the run cannot name its code"
        ) from error
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit,
        "dirty": bool(changed),
        "diff_sha256": hashlib.sha256(changed).hexdigest() if changed else None,
        "versions": {"python": platform.python_version()} | versions,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """The system, the processor and what it can do, on which sums in float32 depend."""
    cpu = _cpu_info()
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in cpu.get("flags", cpu.get("Features", "")).split() if flag.startswith(_VECTOR_FLAGS)],
    }
    if "torch" in sys.modules:
        facts["capability"] = sys.modules["torch"].backends.cpu.get_cpu_capability()
    return facts


def _cpu_info() -> dict[str, str]:
    """What Linux says of its first processor; nothing on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
