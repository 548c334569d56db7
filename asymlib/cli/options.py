"""The command-line options that several commands share, with what the Tab key offers for each."""

from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..methods import CATALOGUE, CHANGEABLE
from ..runs.records import results_root
from ..runs.spec import POLICY_DEFAULTS, PROFILES, ExperimentSpec, make_spec
from ..support.files import named_folder
from ..support.yaml12 import assignment, read_yaml


def one_of(*names: str) -> Callable[[str], list[str]]:
    """A shell completion that offers what starts like the word being typed."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def notebooks_folder() -> Path:
    """The nearest notebooks/ folder upwards."""
    here = Path.cwd()
    return next((p / "notebooks" for p in (here, *here.parents) if (p / "notebooks").is_dir()), Path("notebooks"))


def _matrix_files(incomplete: str) -> list[str]:
    found = [str(p) for where in ("", "experiments/", "notebooks/experiments/") for p in sorted(Path().glob(where + "*.yaml"))]
    return one_of(*found)(incomplete)


def _runs(incomplete: str) -> list[str]:
    return one_of(*CATALOGUE, *(path.name for path in sorted(results_root().glob("*/runs/*"))))(incomplete)


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:5]) <= 1024:
        raise ValueError(f"--jobs={text!r}: must be a whole number from 1 to 1024")
    return int(text)


def folder_option(name: str, meaning: str) -> Any:
    """An option that takes a folder, and refuses '' and a file."""
    return typer.Option(name, parser=lambda text: named_folder(text, name), metavar="FOLDER", help=meaning)


def given(name: str, *values: object) -> None:
    """Raise ValueError for an empty text or path, which would be the current folder, or no choice at all."""
    for value in values:
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"{name}={value!r}: must not be empty")


def file_argument(name: str, meaning: str, **options: Any) -> Any:
    """An argument that takes a file, and refuses ''."""

    def parse(text: str) -> Path:
        given(name.strip("[]"), text)
        return Path(text)

    return typer.Argument(parser=parse, metavar=name, help=meaning, **options)


PROFILE = one_of(*PROFILES)
_SETTINGS = one_of(*(f"{name}=" for name in (*CHANGEABLE, *ExperimentSpec.model_fields)))

MethodName = Annotated[
    str | None,
    typer.Argument(metavar="METHOD", help="A method, such as asymgrpo.", autocompletion=one_of(*CATALOGUE)),
]
SpecFile = Annotated[str | None, typer.Option(help="A YAML or JSON file of spec fields; '-' reads standard input.")]
Policy = Annotated[
    str | None, typer.Option(help="small, base, or a Hugging Face id or folder.", autocompletion=one_of(*POLICY_DEFAULTS))
]
Seed = Annotated[str | None, typer.Option(metavar="INTEGER", help="Seed of prompts and sampling; 0 otherwise.")]
Steps = Annotated[
    str | None, typer.Option(metavar="INTEGER", help="Training steps; 100 otherwise, for the paper's models 200 and 300.")
]
Profile = Annotated[
    str | None,
    typer.Option(help=f"Where the record goes: {', '.join(PROFILES)}.", autocompletion=PROFILE),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any spec field or method setting.", autocompletion=_SETTINGS),
]
Results = Annotated[Path | None, folder_option("--results", "Where records lie; the nearest results/ folder otherwise.")]
Jobs = Annotated[
    int | None,
    typer.Option(parser=_jobs, metavar="INTEGER", help="How many at once; as many as there are cores otherwise, one on verl."),
]
Matrix = Annotated[Path, file_argument("MATRIX", "A YAML matrix, see notebooks/experiments/.", autocompletion=_matrix_files)]
MatrixOrNone = Annotated[
    Path | None, file_argument("[MATRIX]", "A YAML matrix; none: say what there is.", autocompletion=_matrix_files)
]
GpusPerNode = Annotated[int | None, typer.Option(min=1, help="GPUs that each node gives; those of the profile otherwise.")]
Override = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A setting of verl that is the machine's, not the run's; recorded with the run."),
]
Patience = Annotated[int | None, typer.Option(min=1, help="Seconds without news after which it is given up; 1800 otherwise.")]
RunName = Annotated[
    str, typer.Argument(help="A run's id or folder, or a variant: grpo, 'reinforce beta_neg=0.75'.", autocompletion=_runs)
]


def takes_spec(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command's first parameter, a spec, of options: a file's fields, over them the single ones, over these --set."""

    def made(
        method: MethodName = None,
        spec: SpecFile = None,
        policy: Policy = None,
        seed: Seed = None,
        steps: Steps = None,
        profile: Profile = None,
        set_: Set = None,
        **others: Any,
    ) -> None:
        given("--spec", spec)
        fields = read_yaml("/dev/stdin" if spec == "-" else spec) if spec else {}
        options = {"method": method, "policy": policy, "seed": seed, "steps": steps, "profile": profile}
        fields |= {name: value for name, value in options.items() if value is not None}
        command(make_spec(**fields | dict(map(assignment, set_ or []))), **others)

    hints = {name: hint for f in (made, command) for name, hint in get_type_hints(f, include_extras=True).items()}
    parameters = [*list(signature(made).parameters.values())[:-1], *list(signature(command).parameters.values())[1:]]
    made.__signature__ = Signature([one.replace(annotation=hints[one.name]) for one in parameters])
    made.__annotations__ = hints
    made.__name__, made.__doc__ = command.__name__, command.__doc__
    return made
