"""A seeded campaign of faults. Each kind's function tries one fault and returns None, or in words how asymlib fell short.

    python tests/campaign.py 400     so many tries of each kind (a slow one: a twentieth); prints docs/faults.md's table

Runs are trained by the stand-in of sums.py.
"""

import errno
import json
import os
import random
import signal
import string
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import sums
import sums_on_ray
import yaml
from sums import SPEC, cut_off, differs, run, undisturbed

from asymlib import RunRecord, load_runs, make_spec
from asymlib.runs.matrix import load_matrix
from asymlib.runs.records import RECORD_FILES, run_folder
from asymlib.support import files
from asymlib.support.messages import MOST, sentence


def damaged(content: bytes, dice: random.Random) -> bytes:
    """What disks, editors and power cuts do: bits flipped, cut, zeros, a part twice, lines less, twice or turned round."""
    if not content:
        return b"\0"
    at = dice.randrange(len(content))
    lines = content.splitlines(keepends=True)
    line = dice.randrange(len(lines))
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()] or [at]
    digit = dice.choice(digits)
    return dice.choice(
        [
            content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :],
            content[:at],
            content[:at] + bytes(len(content) - at),
            content[:at] + content,
            b"".join(lines[:line] + lines[line + 1 :]),
            b"".join(lines[: line + 1] + lines[line:]),
            b"".join(reversed(lines)) + b" ",
            content[:digit] + bytes([48 + (content[digit] - 47) % 10]) + content[digit + 1 :],
            b"",
            bytes(dice.randrange(256) for _ in range(dice.randrange(1, 50))),
            b"[" * 50_000,
        ]
    )


def progress(dice: random.Random, results: Path) -> str | None:
    folder = cut_off(results, dice.randrange(1, SPEC.steps))
    present = [name for name in ("metrics.jsonl", "snapshot.pt", "spec.json", "provenance.json") if (folder / name).exists()]
    for name in dice.sample(present, dice.choice([1, 1, 1, 2])):
        path = folder / name
        (dice.random() < 0.1 and path.unlink()) or path.write_bytes(damaged(path.read_bytes() if path.exists() else b"", dice))
    return differs(results)


def record(dice: random.Random, results: Path) -> str | None:
    whole, hurt = run(results, make_spec(method="grpo", steps=10, seed=1)), run(results)
    path = hurt.folder / dice.choice([*RECORD_FILES, "done.json"])
    content = path.read_bytes()
    how = dice.randrange(6)
    if how == 0:
        path.unlink()
    elif how == 1:
        path.unlink()
        path.symlink_to(dice.choice(["nowhere", path.name]))
    elif how == 2:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(damaged(content, dice))
    same = path.is_file() and json_equal(path, content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ids = load_runs(results)["run_id"].tolist()
    if same:
        return None
    if ids != [whole.folder.name]:
        return f"{path.name} damaged: {len(ids)} runs are counted"
    return None if hurt.folder.name in str([w.message for w in said]) else "no warning names the record"


def json_equal(path: Path, content: bytes) -> bool:
    """Whether a file says what it said: done.json is not hashed, so white space in it may differ."""
    try:
        return path.name == "done.json" and json.loads(path.read_bytes()) == json.loads(content)
    except (ValueError, RecursionError):
        return path.read_bytes() == content


def power(dice: random.Random, results: Path) -> str | None:
    """After a power cut each file is as it was at some moment, and what was not synced is short, empty or zeros."""
    versions: dict[str, list[bytes | None]] = {}
    synced = files.write_atomically

    def note(path, content):
        synced(path, content)
        versions.setdefault(path.name, [None]).append(content)

    names = ("asymlib.support.files", "asymlib.runs.writer")
    for name in names:
        sys.modules[name].write_atomically = note
    try:
        cut_off(results, dice.randrange(1, SPEC.steps)) if dice.random() < 0.6 else run(results)
    finally:
        for name in names:
            sys.modules[name].write_atomically = synced
    folder = run_folder(SPEC, results)
    for name, contents in versions.items():
        if dice.random() < 0.5:
            continue
        (folder / name).unlink(missing_ok=True)
        if (content := dice.choice(contents)) is not None:
            lost = dice.random() < 0.3  # on a system that renames before it writes
            (folder / name).write_bytes(
                dice.choice([b"", content[: len(content) // 2], bytes(len(content))]) if lost else content
            )
    lines = folder / "metrics.jsonl"
    if lines.exists() and dice.random() < 0.7:
        content = lines.read_bytes()
        at = dice.randrange(len(content) + 1)
        lines.write_bytes(content[:at] + bytes(dice.choice([0, len(content) - at])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(load_runs(results)) and not RunRecord(folder).metrics.equals(undisturbed().metrics):
            return "a half-written record is counted"
    return differs(results)


def disk(dice: random.Random, results: Path) -> str | None:
    """The n-th flush or rename fails, as on a full, broken, or read-only disk."""
    number, code = dice.randrange(1, 30), dice.choice([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
    counted, real = [0], {"fsync": os.fsync, "replace": Path.replace}

    def failing(name):
        def call(*arguments):
            counted[0] += 1
            if counted[0] == number:
                raise OSError(code, os.strerror(code))
            return real[name](*arguments)

        return call

    os.fsync, Path.replace = failing("fsync"), failing("replace")
    try:
        run(results)
    except OSError as error:
        if not error.filename or "\n" in str(error):
            return f"the error names no file: {error}"
    finally:
        os.fsync, Path.replace = real["fsync"], real["replace"]
    if left := [path.name for path in results.rglob("*.partial")]:
        return f"half-written files stay: {left}"
    return differs(results)


VALUES = (
    *(None, True, False, 0, -1, 1.5, 1e300, float("nan"), float("inf"), 10**24, 2**70, 1j, b"x", object()),
    *("", " ", "x", "1", "1e3", "yes", "0x1", "\u0661", "\n", "\0", "\ud800", "a" * 100_000, "[/x]", "{x}"),
    *("/", "../..", "./nope", "org/na me", "a/b/c/d", [], {}, (1,), [1], {1: 2}, [[[[]]]]),
)
FIELDS = (
    *type(SPEC).model_fields,
    "beta_pos",
    "beta_neg",
    "clip_high",
    "entropy_advantage",
    "entropy_coeff",
    "pass_k",
    "x",
    "name",
)


def value(dice: random.Random, results: Path) -> str | None:
    fields = {"method": dice.choice(["grpo", "grpo_entropy_adv", "pass_at_k", "asymgrpo"])}
    fields |= {dice.choice(FIELDS): dice.choice(VALUES) for _ in range(dice.choice([1, 1, 2, 3]))}
    try:
        spec = make_spec(**fields)
    except ValueError as error:
        line = sentence(error)
        return None if line and len(line) <= MOST else "no sentence"
    except Exception as error:
        return f"{fields}: {type(error).__name__}"
    again = type(spec).model_validate_json(spec.model_dump_json())
    return None if again == spec and again.run_id == spec.run_id else f"{fields}: not the same after JSON"


_OTHERS = "[" * 500, "&a ", "*a", "yes", "!!python/object:os.system", "\u00e9", "- ", "1:30", "{}", "null"
TYPED = (*string.printable, *_OTHERS)


def matrix(dice: random.Random, results: Path) -> str | None:
    text = "defaults: {profile: lab, steps: 5}\naxes:\n  method: [grpo, {method: reinforce, entropy_coeff: 0.01}]\n"
    text += "  seed: [100, 101]\nexceptions:\n  - {when: {seed: 101}, set: {steps: 3}}\n"
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(text))
        piece = dice.choice(TYPED)
        text = text[:at] + dice.choice([piece, "", text[at:] + text[at:]]) + text[at + dice.randrange(3) :]
    path = results / "m.yaml"
    path.write_text(text)
    started = time.monotonic()
    try:
        specs = load_matrix(path)
    except ValueError as error:
        said = str(error)
        return None if said.startswith(f"{path}: ") and "\n" not in sentence(said) else f"{text!r}: {said}"
    except Exception as error:
        return f"{text!r}: {type(error).__name__}"
    if time.monotonic() - started > 5:
        return "it takes more than five seconds"
    content = yaml.safe_load(text)  # what is accepted says what PyYAML reads, but for YAML 1.1's surprises
    return None if specs and isinstance(content, dict) else f"{text!r}: accepted"


def kill(dice: random.Random, results: Path) -> str | None:
    """SIGKILL, SIGTERM or SIGINT to a process that trains, at a random moment, once or twice; then two at once to the end."""
    command = [sys.executable, sums.__file__, str(results)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(dice.choice([1, 2])):
        process = subprocess.Popen(command, **quiet)
        deadline = time.monotonic() + 60
        while not run_folder(SPEC, results).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.4)
        process.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.wait()
    both = [subprocess.Popen(command, **quiet) for _ in range(2)]
    if any(process.wait() for process in both):
        return "the run does not end after it"
    return differs(results)


class Kind(NamedTuple):
    what: str
    try_: Callable[[random.Random, Path], str | None]
    slow: bool = False


KINDS = {
    "damaged progress": Kind(
        "lines, snapshot, spec or provenance of a cut-off run damaged; run again, it ends as an undisturbed run", progress
    ),
    "damaged record": Kind("a file of a finished record damaged, gone, a folder, a link; it is named and not counted", record),
    "power cut": Kind(
        "each file as it was at some moment, what was not synced short, empty or zeros; run again, it ends as undisturbed",
        power,
    ),
    "full or broken disk": Kind(
        "one flush or rename fails; the error names the file, nothing half-written stays, and run again it ends as undisturbed",
        disk,
    ),
    "wrong values": Kind("spec fields of wrong kinds and sizes; refused in one sentence, or the spec survives JSON", value),
    "wrong matrix": Kind("a matrix with typing errors; refused within seconds in one sentence that names the file", matrix),
    "killed run": Kind("a process that trains killed once or twice, then two at once; the record is undisturbed", kill, True),
    "killed Ray batch": Kind("a batch on Ray killed while it trains and run again; the same holds", sums_on_ray.kill, True),
}


def shortfalls(kind: str, tries: int, first_seed: int = 0) -> list[str]:
    """What fell short in so many tries; a try's number is its seed."""
    found = []
    for seed in range(first_seed, first_seed + tries):
        with tempfile.TemporaryDirectory(prefix="faults") as folder:
            try:
                fault = KINDS[kind].try_(random.Random(f"{kind} {seed}"), Path(folder))
            except Exception as error:
                fault = f"{type(error).__name__}: {sentence(error)}"
        found += [f"seed {seed}: {fault}"] if fault else []
    return found


def tries_of(kind: str, tries: int) -> int:
    return max(1, tries // 20) if KINDS[kind].slow else tries


def main(tries: int) -> None:
    print("| kind | fault, and what must hold | tries | shortfalls |\n|---|---|---|---|")
    for kind in KINDS:
        found = shortfalls(kind, tries_of(kind, tries))
        print(f"| {kind} | {KINDS[kind].what} | {tries_of(kind, tries):,} | {len(found)} |", flush=True)
        print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]))
