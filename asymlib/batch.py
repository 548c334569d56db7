"""A matrix of specs -> papermill, as many at once as there are cores (verl: one after the other), resumable.

A matrix is a YAML file:

    defaults: {profile: lab, policy: small, steps: 500}     fields of every spec
    axes:                                                   the product of these lists
      method: [grpo, {method: reinforce, entropy_coeff: 0.01}]      an entry that is a mapping sets several fields
      seed: [100, 101, 102]
    exceptions:                                             where all of `when` match ...
      - {when: {method: grpo, seed: 102}, skip: true}       ... the spec is left out
      - {when: {policy: base}, set: {steps: 300}}           ... or changed
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .experiment import ExperimentSpec, make_spec
from .records import results_root, run_folder
from .running import state_of
from .validation import near_names, one_sentence


class Change(BaseModel):
    """One exception of a matrix."""

    model_config = ConfigDict(extra="forbid")
    when: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    skip: bool = False


class Matrix(BaseModel):
    model_config = ConfigDict(extra="forbid")
    defaults: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(min_length=1)
    exceptions: list[Change] = Field(default_factory=list)

    def specs(self) -> list[ExperimentSpec]:
        """The specs in order of the axes, each once. Raises ValueError in one sentence."""
        found: dict[str, ExperimentSpec] = {}
        for choice in itertools.product(*self.axes.values()):
            fields = dict(self.defaults)
            for axis, value in zip(self.axes, choice, strict=True):
                fields |= value if isinstance(value, dict) else {axis: value}
            skip = False
            for change in self.exceptions:
                if all(fields.get(k) == v for k, v in change.when.items()):
                    fields |= change.set
                    skip |= change.skip
            if not skip:
                spec = make_spec(**fields)
                found.setdefault(spec.run_id, spec)
        return list(found.values())


def load_matrix(path: Path | str) -> list[ExperimentSpec]:
    """The specs of a matrix file. Raises ValueError, in one sentence that names the file, for anything wrong in it."""
    fields = read_yaml(path)
    unknown = set(fields) - set(Matrix.model_fields)
    if unknown:
        name = sorted(unknown, key=str)[0]
        raise ValueError(f"{path}: unknown key {name!r}: {near_names(name, Matrix.model_fields)}")
    try:
        return Matrix.model_validate(fields).specs()
    except ValidationError as error:
        raise ValueError(f"{path}: {one_sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML mapping with text keys. Raises ValueError in one line."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: must be a YAML mapping, not {type(content).__name__}")
    return content


def default_jobs(specs: list[ExperimentSpec]) -> int:
    """One where verl trains, for a run takes every GPU; else as many as there are cores."""
    return 1 if any(spec.engine == "verl" for spec in specs) else os.cpu_count() or 1


def run_batch(
    specs: list[ExperimentSpec],
    notebook: Path,
    results: Path | None = None,
    jobs: int | None = None,
    report: Callable[[ExperimentSpec, str, str], None] = lambda spec, state, message: None,
) -> dict[str, str]:
    """Execute `notebook` through papermill for every spec that is not done. Returns each failed run_id's message.

    A spec's run happens under its lock, so two batches may share a matrix. `report` hears of each spec as it ends. The executed
    notebook stays beside the record as `train.ipynb`.
    """
    results = Path(results or results_root())
    failures: dict[str, str] = {}
    waiting = []
    for spec in specs:
        state = state_of(spec, results)
        if state in ("done", "collapsed"):
            report(spec, state, "was there")
        else:
            waiting.append(spec)
    with ProcessPoolExecutor(jobs or default_jobs(specs)) as pool:
        futures = {pool.submit(_execute, spec, notebook, results): spec for spec in waiting}
        for future in as_completed(futures):
            spec = futures[future]
            try:
                future.result()
            except BrokenProcessPool:
                failures[spec.run_id] = "its worker was killed"
            except Exception as error:
                failures[spec.run_id] = str(error)
            report(spec, state_of(spec, results), failures.get(spec.run_id, ""))
    return failures


def _execute(spec: ExperimentSpec, notebook: Path, results: Path) -> None:
    folder = run_folder(spec, results)
    folder.mkdir(parents=True, exist_ok=True)
    settings = spec.model_dump(mode="json")
    parameters = {name: settings.pop(name) for name in ("method", "method_changes", "policy", "seed", "steps", "profile")}
    parameters |= {"settings": settings, "results": str(results.resolve())}
    execute_notebook(notebook, folder / "train.ipynb", parameters)


TRAINING_NOTEBOOKS = ("00_start_here.ipynb", "10_train.ipynb")


def build(
    profile: str,
    notebooks: Path,
    results: Path | None = None,
    jobs: int | None = None,
    report: Callable[[str, str], None] = lambda name, message: None,
) -> dict[str, str]:
    """Execute the notebooks into `results/<profile>/notebooks/`; they leave its figures and tables. Returns failures by name.

    Profile 'quick' executes all of them; the others only those that draw from records.
    """
    results = Path(results or results_root()).resolve()
    sources = [p for p in sorted(notebooks.glob("[0-9]*.ipynb")) if profile == "quick" or p.name not in TRAINING_NOTEBOOKS]
    if not sources:
        raise ValueError(f"{notebooks}: holds no numbered notebook")
    parameters, failures = {"profile": profile, "results": str(results)}, {}
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        target = results / profile / "notebooks"
        futures = {pool.submit(execute_notebook, p.resolve(), target / p.name, parameters): p.name for p in sources}
        for future in as_completed(futures):
            error = future.exception()
            if error:
                failures[futures[future]] = str(error)
            report(futures[future], str(error or ""))
    return failures


def execute_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Papermill without its progress bar; `target` appears whole. Raises RuntimeError with the failing cell's error."""
    import papermill  # slow to import, and reading results does not need it

    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", PYDEVD_DISABLE_FILE_VALIDATION="1")
    try:
        papermill.execute_notebook(source, partial, parameters, kernel_name="python3", cwd=source.parent, progress_bar=False)
    except papermill.PapermillExecutionError as error:
        raise RuntimeError(f"{source.name}: {error.ename}: {error.evalue}") from None
    finally:
        if partial.exists():
            partial.replace(target)
