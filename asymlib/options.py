"""The command-line options that name a spec, for every command that takes one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from .batch import read_yaml
from .experiment import ExperimentSpec, make_spec

MethodName = Annotated[str | None, typer.Argument(metavar="METHOD", help="A method of Table 1, such as asymgrpo.")]
SpecFile = Annotated[str | None, typer.Option(help="A YAML or JSON file of spec fields; '-' reads standard input.")]
Policy = Annotated[str | None, typer.Option(help="small, base, or a Hugging Face id or folder.")]
Seed = Annotated[int | None, typer.Option()]
Steps = Annotated[int | None, typer.Option()]
Profile = Annotated[str | None, typer.Option(help="quick, lab, h100 or cpu: where the record goes.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any spec field or method setting.")]
Results = Annotated[Path | None, typer.Option(help="Where records lie; the nearest results/ folder otherwise.")]


def spec_of(file: str | None, assignments: list[str] | None, **options: Any) -> ExperimentSpec:
    """A file's fields, over them the options that are given, over these --set. Raises ValueError in one sentence."""
    fields = read_yaml("/dev/stdin" if file == "-" else file) if file else {}
    fields |= {name: value for name, value in options.items() if value is not None}
    return make_spec(**fields | dict(assignment("--set", text) for text in assignments or []))


def assignment(option: str, text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value read as YAML. Raises ValueError in one sentence that names the option."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{option} {text!r}: must read NAME=VALUE, such as beta_pos=0.9")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"{option} {text!r}: the value is not YAML") from None
