"""What made a record: commit, package versions and machine."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ..support.messages import sentence

_PACKAGES = ("asymlib", "numpy", "pandas", "torch", "transformers", "verl", "vllm")
_VECTOR_FLAGS = ("sse4", "avx", "fma", "amx", "asimd", "sve")  # of x86 and ARM


def collect_provenance() -> dict[str, Any]:
    """What code runs, package versions and machine."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return _code() | {"versions": {"python": platform.python_version()} | versions, "machine": machine()}


def _code() -> dict[str, Any]:
    """The commit and the hash of what differs from it inside asymlib/.

    Where no commit can be told (an installed package, a checkout that git refuses): the hash of the source, and git's reason.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        if not (root / ".git").exists():
            raise OSError("an installed package")
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        changed = _git(root, "diff", "HEAD", "--", "asymlib")
        for name in _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "asymlib").split(b"\0"):
            path = root / os.fsdecode(name)
            changed += name + (path.read_bytes() if path.is_file() else b"")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = os.fsdecode(getattr(error, "stderr", None) or b"").strip() or str(error)
        source = hashlib.sha256()
        for path in sorted((root / "asymlib").rglob("*.py")):
            source.update(os.fsencode(path.relative_to(root)) + path.read_bytes())
        no_commit = {"commit": None, "dirty": False, "diff_sha256": None}
        return no_commit | {"source_sha256": source.hexdigest(), "no_commit": sentence(reason)}
    return {"commit": commit, "dirty": bool(changed), "diff_sha256": hashlib.sha256(changed).hexdigest() if changed else None}


def _git(root: Path, *arguments: str) -> bytes:
    """git's answer on the checkout at `root`, whatever repository a hook's GIT_DIR names."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True, env=clean).stdout


def name_of_code(provenance: dict[str, Any]) -> str:
    """'1a2b3c4d5e6f', and 'with changes' or 'source' where there is no commit."""
    if provenance["commit"] is None:
        return f"source {provenance['source_sha256'][:12]}"
    return provenance["commit"][:12] + (" with changes" if provenance["dirty"] else "")


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
