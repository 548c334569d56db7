"""`asymlib verl rehearse` and `asymlib batch --rehearse`: each part of a run, an hour before the run is started."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ..evaluation.sets import data_root
from ..execution.batch import run_batch
from ..execution.running import run_in_subprocess, state_of
from ..runs.matrix import load_matrix
from ..runs.records import RunRecord, results_root, run_folder
from ..runs.spec import ExperimentSpec
from ..support.files import read_json, write_atomically, write_json
from ..support.messages import say
from ..verl import rehearse
from ..verl.cpu.settings import STAND_IN
from ..verl.setting import Machine
from ..verl.target import machine_of, target_of
from .doctor import ROOT, refuse_unready
from .options import GpusPerNode, Override, Patience, Results, notebooks_folder, takes_spec

DOLLARS = 3.0  # of an H100-hour, on demand; a guess
MEMORY_SECONDS = 2.0  # between two looks: each walks all pages of a dozen processes
Dollars = Annotated[float, typer.Option(min=0, help="What a GPU-hour costs; ask your provider.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="Of a CPU's stand-in: a folder, or 'bytes' (small); otherwise the real one, by npm.")
]


@takes_spec
def rehearse_spec(
    wanted: ExperimentSpec,
    results: Results = None,
    matrix: Annotated[Path | None, typer.Option(help="Project the runs of this matrix too.")] = None,
    gpus_per_node: GpusPerNode = None,
    patience: Patience = None,
    override: Override = None,
    dollars_per_gpu_hour: Dollars = DOLLARS,
    tokenizer: Tokenizer = None,
) -> None:
    """A few steps of the run that `launch` would start, cut off and resumed, evaluated, drawn; then hours, disk, cost."""
    others = load_matrix(matrix) if matrix else []
    machine = _one_node(wanted, override, gpus_per_node=gpus_per_node, patience=patience)
    try:
        say(_rehearse(wanted, results or results_root(), machine, dollars_per_gpu_hour, tokenizer, others))
    except RuntimeError as error:
        say(error)
        raise typer.Exit(1) from None


def rehearse_matrix(
    specs: list[ExperimentSpec], name: str, root: Path, gpus: int | None, overrides: list[str] | None, tokenizer: str | None
) -> None:
    """Every spec that has no page yet; then one page of them all. Exit status 1 if any failed."""
    failed, rows = 0, []
    for spec in specs:
        say(f"{spec.variant}, {spec.policy}, seed {spec.seed}", flush=True)
        machine = _one_node(spec, overrides, gpus_per_node=gpus)
        try:
            _rehearse(spec, root, machine, DOLLARS, tokenizer, specs)
        except RuntimeError as error:
            failed += 1
            say(f"failed: {error}", flush=True)
            continue
        short = rehearse.shortened(spec, not _has_gpus())
        measured = rehearse.read_measured(run_folder(short, root / "rehearsal"))
        rows.append((spec, short, measured))
    text = rehearse.matrix_page(name, rows, failed, DOLLARS)
    write_atomically(root / "rehearsal" / f"{name}.md", text.encode())
    say(text)
    if failed:
        raise typer.Exit(1)


def _one_node(spec: ExperimentSpec, overrides: list[str] | None, **options: Any) -> Machine:
    machine = machine_of(spec, overrides, **options)
    if machine.nodes > 1 or machine.ray_address:
        say("a rehearsal takes this node and a Ray of its own: ASYMLIB_NODES and RAY_ADDRESS do nothing here", flush=True)
    return machine._replace(nodes=1, ray_address=None)


def _has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def _rehearse(spec: ExperimentSpec, root: Path, machine: Machine, dollars: float, tokenizer: str | None, matrix: list) -> str:
    """The page, which also lies beside the rehearsal's record. What is done of it is not done again."""
    if spec.engine != "verl" or target_of(spec).needs != "h100":
        raise ValueError(f"profile={spec.profile!r}, policy={spec.policy!r}: a rehearsal is of a run on GPUs under verl")
    on_cpu, place = not _has_gpus(), root / "rehearsal"
    if on_cpu:
        machine = machine._replace(gpus_per_node=1)
    else:
        refuse_unready(spec, root, machine)
    short = rehearse.shortened(spec, on_cpu)
    folder = run_folder(short, place)
    _remove_other(folder, machine)
    measured = rehearse.read_measured(folder)
    if measured is None:
        given = os.environ.copy()
        os.environ.update(_environment(spec, root, machine, on_cpu, tokenizer))
        try:
            measured = _run(short, place, machine.gpus_per_node)
        except RuntimeError as error:
            log = folder / "main_ppo.log"
            if log.is_file() and b"out of memory" in log.read_bytes().lower():
                raise RuntimeError(f"{error}\n{rehearse.MEMORY}") from None
            raise
        finally:
            os.environ.clear()
            os.environ.update(given)
        write_json(folder / "rehearsal.json", measured)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # measured: nobody needs a rehearsal's weights
    text = rehearse.page(spec, short, measured, dollars, matrix)
    write_atomically(folder / "rehearsal.md", text.encode())
    return f"{text}\n{folder / 'rehearsal.md'}"


def _remove_other(folder: Path, machine: Machine) -> None:
    """Remove a rehearsal with other GPUs, settings or code, and say so: its numbers are not those of this run."""
    try:
        before = RunRecord(folder).provenance
        found = {name: before["verl"][name] for name in ("gpus_per_node", "overrides")} | {"commit": before["commit"]}
    except (ValueError, KeyError, TypeError):  # nothing yet, or it ended before verl was started
        return
    wanted = {"gpus_per_node": machine.gpus_per_node, "overrides": list(machine.overrides)}
    differ = [f"{name} {found[name]}, now {value}" for name, value in wanted.items() if found[name] != value]
    if _code_changed_since(found["commit"]):
        differ.append(f"the code of commit {found['commit'][:12]}")
    if differ:
        say(f"rehearsed anew; the last time was with {'; '.join(differ)}", flush=True)
        shutil.rmtree(folder)


def _code_changed_since(commit: str | None) -> bool:
    """Whether a later commit changed asymlib/; one of a document or of a rehearsal's page does not count."""
    compare = ["git", "-C", str(ROOT), "diff", "--quiet", str(commit), "HEAD", "--", "asymlib"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    with suppress(FileNotFoundError):
        return subprocess.run(compare, capture_output=True, env=clean).returncode == 1  # 128: git does not know it
    return False


def _environment(spec: ExperimentSpec, root: Path, machine: Machine, on_cpu: bool, tokenizer: str | None) -> dict[str, str]:
    """What the run's processes must know: cut data and, on a CPU, the stand-in; both are made here."""
    place, data = root / "rehearsal", data_root(root)
    if not on_cpu:
        rehearse.cut_data(data, place / "data")
        return {"ASYMLIB_DATA": str(place.resolve() / "data")} | machine.environment
    from transformers import AutoTokenizer

    from ..verl.cpu.standin import architecture, write_stand_in

    name = architecture(spec.policy) + (f"-{Path(tokenizer).name}" if tokenizer else "")
    folder = place.resolve() / "stand-ins" / name
    said = read_json(folder / "stand_in.json") if (folder / "stand_in.json").is_file() else None
    said = said or write_stand_in(spec.policy, folder, tokenizer)
    kind = rehearse.cut_data(data, folder / "data", AutoTokenizer.from_pretrained(folder))
    write_json(folder / "stand_in.json", said | {"data": f"{kind}, answers replaced by digits"})
    return {"ASYMLIB_DATA": str(folder / "data"), STAND_IN: str(folder)} | machine.environment


def _run(short: ExperimentSpec, place: Path, gpus: int) -> dict[str, Any]:
    """Train to the cut, end by SIGTERM, go on from the notebook; raises RuntimeError where a part fails."""
    folder = run_folder(short, place)
    if not (cut := folder / "cut.json").is_file():
        write_json(cut, _train_and_cut(short, place, folder))
    before = read_json(cut)
    started, later = time.monotonic(), {}
    with _most_memory(later):
        failures = run_batch([short], notebooks_folder() / "10_train.ipynb", place, jobs=1)
    for message in failures.values():
        raise RuntimeError(message)
    before["seconds"]["notebook"] = time.monotonic() - started
    return rehearse.measure(RunRecord(folder), gpus=gpus, later=later, **before)


def _train_and_cut(short: ExperimentSpec, place: Path, folder: Path) -> dict[str, Any]:
    """Seconds to the first step and of the end, the most gigabytes of the host and of a card on the way, a checkpoint's."""

    class Cut(Exception):
        """Ends the run's process, as an interruption does."""

    started, first, ending, peak = time.monotonic(), None, 0.0, {}

    def watch(record: RunRecord) -> None:
        nonlocal first, ending
        lines, now = record.metrics, time.monotonic()
        if first is None and len(lines):
            first = now - started - lines.seconds_step.iloc[0]
        if len(lines) >= rehearse.CUT_OFF_AFTER:
            ending = now
            raise Cut

    with suppress(Cut), _most_memory(peak):
        run_in_subprocess(short, place, watch, every=0.5)
    if state_of(short, place) != "cut off" or (folder / "checkpoints" / f"global_step_{short.steps}").is_dir():
        tail = "\n".join((folder / "train.log").read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(
            f"the first attempt was not cut off in time ({state_of(short, place)}); delete {folder}. Its log ends:\n{tail}"
        )
    seconds, checkpoints = {"start-up": first, "SIGTERM": time.monotonic() - ending}, (folder / "checkpoints").glob("global_*")
    return {"seconds": seconds, "memory": peak, "checkpoint": max(map(rehearse.gigabytes, checkpoints))}


@contextmanager
def _most_memory(peak: dict[str, float]) -> Iterator[None]:
    """Keep in `peak` the most that `_gigabytes` sees while the block runs."""
    ended = threading.Event()

    def look() -> None:
        while True:
            for name, value in _gigabytes().items():
                peak[name] = max(value, peak.get(name, 0.0))
            if ended.wait(MEMORY_SECONDS):
                return

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


def _gigabytes() -> dict[str, float]:
    """In use: `host` by the processes that this one started, shared pages counted once; `card` on the fullest GPU."""
    import psutil

    host = 0
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            memory = one.memory_full_info()
            host += getattr(memory, "pss", memory.uss)  # pss is Linux's
    with suppress(FileNotFoundError, subprocess.CalledProcessError, ValueError):  # no such program; no driver; "[N/A]"
        asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        mebibytes = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        return {"host": host / 1e9, "card": max(map(int, mebibytes)) * 2**20 / 1e9}
    return {"host": host / 1e9}
