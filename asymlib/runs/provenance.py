"""What made a record: commit, package versions and machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("asymlib", "numpy", "pandas", "torch", "transformers", "verl", "vllm")


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
        "machine": {"system": f"{platform.system()} {platform.machine()}", "cpu": _cpu_name(), "cores": os.cpu_count()},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or an architecture that does not list it
        return platform.processor() or platform.machine()
