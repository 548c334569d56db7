"""`asymlib data prepare` and `asymlib evaluate`. The engines are imported when a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from ..support.messages import say, shown
from ..support.patience import SilenceError
from .options import Patience, folder_option, given

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@data.callback()
def _data() -> None:
    """The paper's training and test problems."""


@data.command()
def prepare(
    folder: Annotated[
        Path | None, folder_option("--folder", "Where to; $ASYMLIB_DATA or data/ beside results/ otherwise.")
    ] = None,
    local: Annotated[Path | None, folder_option("--from", "A folder with copies of the sets, instead of the hub.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A model's folder or id; its tokens decide which prompts are too long.")
    ] = None,
) -> None:
    """Download the six sets (or read copies), check them and write verl's parquet files; a second call only verifies them."""
    from ..evaluation.data import prepare as prepare_data
    from ..evaluation.sets import data_root

    prepare_data(folder or data_root(), local, tokenizer=tokenizer)


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or id, or a checkpoint folder of verl.")],
    benchmarks: Annotated[str | None, typer.Option(help="Names with commas between; the paper's five otherwise.")] = None,
    engine: Annotated[str | None, typer.Option(help="vllm or transformers; vllm where it is installed otherwise.")] = None,
    samples: Annotated[int | None, typer.Option(help="k of Avg@k; the paper's 5 or 10 otherwise.")] = None,
    response_tokens: Annotated[int | None, typer.Option(min=1, help="The paper's for its models otherwise.")] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.4,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the checkpoint's own otherwise.")] = None,
    data: Annotated[Path | None, folder_option("--data", "Where the prepared data lie.")] = None,
    output: Annotated[Path | None, folder_option("--output", "Where to; below results/evaluations otherwise.")] = None,
    patience: Patience = None,
) -> None:
    """Sample a checkpoint on benchmarks and write evaluation.json; the same command goes on where a killed one was."""
    from ..evaluation.evaluate import BENCHMARKS, summary
    from ..evaluation.evaluate import evaluate as run
    from ..verl.setting import Machine

    given("CHECKPOINT", checkpoint)
    names = BENCHMARKS if benchmarks is None else [name.strip() for name in benchmarks.split(",")]
    if not any(names):
        raise ValueError(f"--benchmarks={shown(benchmarks)}: must name at least one of {', '.join(BENCHMARKS)}")
    wanted = {"response_tokens": response_tokens, "temperature": temperature, "seed": seed, "dtype": dtype}
    wanted["patience"] = Machine.of_environment(patience=patience).patience
    try:
        entries = run(checkpoint, names, samples, engine, output, data=data, **wanted)
    except SilenceError as error:
        say(error)
        raise typer.Exit(1) from None
    say(summary(entries).round(1).to_string(index=False))
