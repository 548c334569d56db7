"""`asymlib doctor`: what a machine lacks for an engine, and what to do about each finding."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ..execution.running import is_locked
from ..runs.records import RunRecord, place_aside, run_folders
from ..runs.spec import ExperimentSpec
from ..support.files import digest, read_json
from ..support.messages import say, shown
from ..verl.setting import Machine
from ..verl.target import target_of

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"lab": "constraints.txt", "verl-cpu": "constraints.txt", "h100": "h100.lock"}
PURPOSES = tuple(LOCKS)
# What each engine imports; their versions must be the lock's, because verl's plugin follows verl's internals.
_VERL = ("verl", "torch", "transferqueue", "ray", "tensordict", "transformers", "datasets", "math-verify", "papermill")
PACKAGES = {
    "lab": ("torch", "safetensors", "numpy", "pandas", "papermill", "ipykernel"),
    "verl-cpu": _VERL,
    "h100": (*_VERL, "vllm"),
}
GPU_MEBIBYTES = 80_000  # an H100 has 81,559
SMALL_CARD = {"Qwen/Qwen3-0.6B": 22_000}  # of 24 GB they have 23,000 or more: the model of gpu1.yaml for these
DRIVER = 580  # the first that runs CUDA 13.0, which the lock's torch is built for
PATIENCE = 120  # seconds for a program that we try
# GB of a run: three checkpoints of 16 bytes a parameter (float32 weights, AdamW's two moments, Hugging Face's copy). A
# rehearsal measures it.
DISK, LARGEST = {"Qwen/Qwen2.5-Math-1.5B": 75, "Qwen/Qwen3-0.6B": 30}, 200
HUB = "https://huggingface.co"
FLASH_ATTENTION = "pip install --no-build-isolation --no-deps --require-hashes -r requirements/flash-attn.lock"


class Finding(NamedTuple):
    """What was looked for, what is there, what to do. `state`: 'ok', 'note' (good to know), 'missing' (the engine needs it)."""

    name: str
    state: str
    found: str
    advice: str = ""
    missing = property(lambda self: self.state == "missing")

    def __str__(self) -> str:
        return f"{self.state:8}{self.name}: {self.found}" + (f"\n        -> {self.advice}" if self.advice else "")


class Wanted(NamedTuple):
    """What the checks ask for."""

    engine: str
    results: Path
    gpus: int
    policies: tuple[str, ...]


def examine(
    engine: str, results: Path, gpus: int = 4, policies: tuple[str, ...] = ("Qwen/Qwen3-4B",), thorough: bool = True
) -> list[Finding]:
    """The findings for one of `PURPOSES`; without `thorough` only those that take no process or network."""
    wanted = Wanted(engine, results, gpus, policies)
    return [check(wanted) for check, engines, slow in CHECKS if engine in engines and (thorough or not slow)]


def refuse_unready(spec: ExperimentSpec, results: Path, machine: Machine) -> None:
    """Print what a run of verl lacks here and what to do about it, and exit with status 1. A cluster's GPUs are not counted."""
    gpus = 0 if machine.ray_address else machine.gpus_per_node
    findings = examine(target_of(spec).needs, results, gpus, (spec.policy,), thorough=False)
    if missing := [finding for finding in findings if finding.missing]:
        say(*missing, sep="\n")
        raise SystemExit(1)


def _python(wanted: Wanted) -> Finding:
    found, lab = ".".join(map(str, sys.version_info[:3])), wanted.engine == "lab"
    if sys.version_info[:3] >= (3, 11, 5) and (lab or sys.version_info[:2] <= (3, 12)):
        return Finding("Python", "ok", found)
    needed = "3.11.5 or newer" if lab else "3.11.5 to 3.12, which verl 0.9.1 has releases for,"
    return Finding("Python", "missing", found, f"{needed} is needed: conda env create -f environment.yml")


def _git(wanted: Wanted) -> Finding:
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    advice = "a record names its commit: install git, work in a clone"
    return Finding("commit", "ok", commit) if commit else Finding("commit", "missing", "git does not say it", advice)


def _versions(wanted: Wanted) -> Finding:
    name, lock = LOCKS[wanted.engine], ROOT / "requirements" / LOCKS[wanted.engine]
    if not lock.is_file():
        return Finding("versions", "note", f"no requirements/{name} beside the package", "work in a clone of the repository")
    pinned, versions = pins(lock), {package: _version(package) for package in PACKAGES[wanted.engine]}
    absent = ", ".join(package for package, version in versions.items() if version is None)
    differ = [f"{p} {version} (lock: {pinned[p]})" for p, version in versions.items() if version not in (None, pinned[p])]
    if absent or differ:
        install = "conda env create -f environment.yml" if wanted.engine == "h100" else "make setup"
        return Finding("versions", "missing", "; ".join([f"not installed: {absent}"] * bool(absent) + differ), install)
    return Finding("versions", "ok", f"{len(versions)} packages as requirements/{name} has them")


def pins(lock: Path) -> dict[str, str]:
    """name -> version of a requirements file, names as in PEP 503, versions without their local part (+cpu)."""
    lines = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;+\\]+)", lock.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _gpus(wanted: Wanted) -> Finding:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    rows = [[part.strip() for part in line.split(",")] for line in (_output(query) or "").splitlines()]
    found = ", ".join(f"{name} {memory} MiB" for name, memory, _ in rows) or "none"
    if len(rows) < wanted.gpus:
        advice = f"{wanted.gpus} are asked for; `asymlib verl launch --gpus-per-node N` takes another number"
        return Finding("GPUs", "missing", found, advice)
    if rows and int(rows[0][2].split(".")[0]) < DRIVER:
        return Finding("GPUs", "missing", f"driver {rows[0][2]}", f"the lock's CUDA 13.0 needs driver {DRIVER} or newer")
    needed = max(SMALL_CARD.get(policy, GPU_MEBIBYTES) for policy in wanted.policies)
    if any(int(memory) < needed for _, memory, _ in rows):
        advice = (
            "our settings are meant for GPUs of 80 GB; for one card of 24 GB: Qwen3-0.6B in notebooks/experiments/gpu1.yaml"
        )
        return Finding("GPUs", "note", found, advice)
    return Finding("GPUs", "ok", found)


def _flash_attention(wanted: Wanted) -> Finding:
    advice = f"{FLASH_ATTENTION} (compiles: half an hour or more)"
    version = _version("flash-attn")
    return Finding("flash-attn", "ok", version) if version else Finding("flash-attn", "missing", "not installed", advice)


def _plugin(wanted: Wanted) -> Finding:
    if "asymlib" not in [entry.name for entry in metadata.entry_points(group="verl.plugins")]:
        return Finding("verl plugin", "missing", "not among verl.plugins", "pip install --no-deps --editable .")
    program = "import verl; from asymlib.verl.plugin import assert_registered; assert_registered(); print('registered')"
    return _try("verl plugin", program, "reinstall what does not load")


def _ray(wanted: Wanted) -> Finding:
    program = "import ray; ray.init('local', num_cpus=1, include_dashboard=False); print(ray.__version__, 'starts')"
    return _try("Ray", program, "look into /tmp/ray/session_latest/logs; a machine under heavy load is too slow for it")


def _try(name: str, program: str, advice: str) -> Finding:
    """Run a Python program in a process of its own; its last line, or that of its error, is what was found."""
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Finding(name, "missing", f"no answer after {PATIENCE} s", advice)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    found = lines[-1] if lines else f"status {done.returncode}"
    return Finding(name, "missing", found, advice) if done.returncode else Finding(name, "ok", found)


def _disk(wanted: Wanted) -> Finding:
    needed = max(DISK.get(policy, LARGEST) for policy in wanted.policies) if wanted.engine == "h100" else 1
    here = next(p for p in (wanted.results.resolve(), *wanted.results.resolve().parents) if p.exists())
    free = shutil.disk_usage(here).free / 1e9
    found = f"{free:.0f} GB free at {here}, about {needed} GB needed for a run"
    if free >= needed:
        return Finding("disk", "ok", found)
    return Finding("disk", "missing", found, "free some, or put the records elsewhere: ASYMLIB_RESULTS=/large/disk")


def _data(wanted: Wanted) -> Finding:
    from ..evaluation.sets import data_root

    manifest = data_root(wanted.results) / "manifest.json"
    try:
        rows = read_json(manifest)["rows_kept"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return Finding("data", "missing", f"no {manifest}", "asymlib data prepare")
    return Finding("data", "ok", ", ".join(f"{name} {count}" for name, count in rows))


def _model(wanted: Wanted) -> Finding:
    from huggingface_hub import try_to_load_from_cache

    for policy in wanted.policies:
        if not Path(policy).is_dir() and not isinstance(try_to_load_from_cache(policy, "config.json"), str):
            return Finding("model", "note", f"{policy} is not here", f"a run downloads it; beforehand: hf download {policy}")
    return Finding("model", "ok", ", ".join(wanted.policies))


def _hub(wanted: Wanted) -> Finding:
    address, advice = os.environ.get("HF_ENDPOINT", HUB), "models and data must be here already"
    if os.environ.get("HF_HUB_OFFLINE"):
        return Finding("hub", "note", "HF_HUB_OFFLINE is set", advice)
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5).close()
    except (OSError, ValueError) as error:
        return Finding("hub", "note", f"{address} does not answer: {getattr(error, 'reason', error)}", advice)
    return Finding("hub", "ok", address)


def examine_records(results: Path, set_aside: bool) -> list[Finding]:
    """What passes for a record or a warm-up and is none; asked, it is moved to results/set-aside/. A run that was cut off is
    not broken: its spec run again goes on."""
    faults, findings, moment = {}, [], datetime.now()
    if not results.is_dir():
        raise ValueError(f"results={shown(str(results))}: no such folder")
    unread: list[OSError] = []
    for folder in run_folders(results, unread.append):
        record = RunRecord(folder)
        if record.fault and not record.can_go_on and not is_locked(folder):
            faults[folder] = record.fault
    for weights in sorted(results.glob("warmup/*.safetensors")):
        facts = weights.with_suffix(".json")
        with suppress(OSError, ValueError, TypeError, KeyError):
            if read_json(facts)["sha256"] == digest(weights):
                continue
        faults |= {path: f"not the weights that {facts.name} names" for path in (facts, weights) if os.path.lexists(path)}
    for path, fault in faults.items():
        target, advice = place_aside(results, path, moment), "asymlib doctor --records --set-aside"
        if set_aside:
            target.parent.mkdir(parents=True, exist_ok=True)
            advice = f"it is in {path.rename(target)} now"
        findings.append(Finding(os.path.relpath(path, results), "note" if set_aside else "missing", fault, advice))
    advice = "make it readable, or move what is no run"
    findings += [Finding(os.path.relpath(error.filename, results), "missing", error.strerror, advice) for error in unread]
    return findings or [Finding("records", "ok", f"all below {results} are whole, or go on when they are run again")]


def _output(command: list[str]) -> str | None:
    """What a command prints, None where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


# A check, the engines that need it, and whether it starts a process or asks the network.
CHECKS: tuple[tuple[Callable[[Wanted], Finding], tuple[str, ...], bool], ...] = (
    (_python, PURPOSES, False),
    (_git, PURPOSES, False),
    (_versions, PURPOSES, False),
    (_gpus, ("h100",), False),
    (_flash_attention, ("h100",), False),
    (_disk, PURPOSES, False),
    (_data, ("h100",), False),
    (_plugin, ("verl-cpu", "h100"), True),
    (_ray, ("verl-cpu", "h100"), True),
    (_model, ("h100",), True),
    (_hub, ("h100",), True),
)
