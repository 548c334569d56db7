"""`asymlib verl config | launch`: what a run on verl would be, and the run, here, on a Ray cluster or as a SLURM job."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..evaluation.sets import data_root
from ..execution.batch import refuse_no_cluster
from ..execution.running import run_in_subprocess
from ..runs.records import RunRecord, results_root, run_folder
from ..runs.spec import ExperimentSpec
from ..support.messages import say
from ..verl.setting import Setting
from ..verl.settings import settings
from ..verl.target import machine_of
from .doctor import refuse_unready
from .options import GpusPerNode, Override, Patience, Results, takes_spec
from .rehearse import rehearse_spec

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The distributed engine: 4 x H100 and more.")

app.command("rehearse")(rehearse_spec)

Nodes = Annotated[int | None, typer.Option(min=1, help="Nodes of the cluster or job; 1 otherwise.")]
Resolved = Annotated[bool, typer.Option("--resolved", help="verl's whole configuration as YAML instead.")]
RayAddress = Annotated[str | None, typer.Option(help="HOST:PORT of a running cluster; a Ray of its own otherwise.")]
DashboardHost = Annotated[
    str | None, typer.Option(help="Where Ray's dashboard listens; whoever reaches it runs code. localhost otherwise.")
]
Slurm = Annotated[bool, typer.Option("--slurm", help="Print an sbatch script instead of training here.")]
Submit = Annotated[bool, typer.Option("--submit", help="With --slurm: put the script in the record and submit it.")]
SlurmOption = Annotated[list[str] | None, typer.Option(metavar="--NAME=VALUE", help="A line for #SBATCH: --partition=gpu.")]


def _refuse_lab(spec: ExperimentSpec) -> None:
    if spec.engine != "verl":
        raise ValueError(f"policy={spec.policy!r}: the lab trains it (asymlib run); verl needs a Hugging Face id or folder")


@app.command()
@takes_spec
def config(
    wanted: ExperimentSpec,
    results: Results = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    override: Override = None,
    resolved: Resolved = False,
) -> None:
    """Print every setting with its source. Launches nothing."""
    _refuse_lab(wanted)
    root = results or results_root()
    machine = machine_of(wanted, nodes=nodes, gpus_per_node=gpus_per_node, overrides=override)
    rows = settings(wanted, run_folder(wanted, root), data_root(root), machine)
    if resolved:
        return say(_resolved(rows))
    say(f"# {wanted.variant}, {wanted.policy}, seed {wanted.seed}, {wanted.steps} steps, run {wanted.run_id}")
    for row in rows:
        say(f"{row.override}  # {row.source}")
    say("# hours, GPU-hours, disk and cost are measured: asymlib verl rehearse with the same options")


def _resolved(rows: list[Setting]) -> str:
    """verl's whole configuration. Raises ValueError for an override that it has no place for."""
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            whole = compose("ppo_trainer", [row.override for row in rows])
        return OmegaConf.to_yaml(whole, resolve=True).rstrip()
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"--override: verl's configuration does not take it: {error}") from None


@app.command()
@takes_spec
def launch(
    wanted: ExperimentSpec,
    results: Results = None,
    nodes: Nodes = None,
    gpus_per_node: GpusPerNode = None,
    ray_address: RayAddress = None,
    dashboard_host: DashboardHost = None,
    patience: Patience = None,
    override: Override = None,
    slurm: Slurm = False,
    submit: Submit = False,
    slurm_option: SlurmOption = None,
) -> None:
    """Train a spec on verl; log and checkpoints are in its record. The same command again goes on from the last one."""
    _refuse_lab(wanted)
    root = results or results_root()
    given = {"dashboard_host": dashboard_host, "ray_address": ray_address, "patience": patience, "overrides": override}
    machine = machine_of(wanted, nodes=nodes, gpus_per_node=gpus_per_node, **given)
    settings(wanted, run_folder(wanted, root), data_root(root), machine)  # refuses what is wrong
    if not slurm and (submit or slurm_option):
        raise ValueError(f"{'--submit' if submit else '--slurm-option'} needs --slurm")
    if slurm and ray_address:
        raise ValueError("--slurm starts a Ray of its own: it takes no --ray-address")
    if slurm:
        from ..verl import slurm as jobs

        script = jobs.render([wanted], root, data_root(root), machine, slurm_option)
        say(jobs.submit(script, run_folder(wanted, root) / "slurm.sh") if submit else script)
        return
    if machine.nodes > 1 and not machine.ray_address:
        raise ValueError(f"--nodes {machine.nodes}: more than one node needs --ray-address or --slurm")
    if machine.ray_address:
        refuse_no_cluster(machine.ray_address)
    refuse_unready(wanted, root, machine)
    os.environ.update(machine.environment)
    _train(wanted, root)


def _train(wanted: ExperimentSpec, root: Path) -> None:
    """The run in a process of its own; status 1 with the log's end if it fails, 130 if it is stopped."""
    folder, shown = run_folder(wanted, root), 0

    def follow(record: RunRecord) -> None:
        nonlocal shown
        for line in record.metrics.to_dict("records")[shown:]:
            shown += 1
            say(f"step {line['step']}/{wanted.steps} reward {line['reward']:.3f}", flush=True)

    say(f"{wanted.variant}, {wanted.policy}, seed {wanted.seed}: {folder}", flush=True)
    try:
        record = run_in_subprocess(wanted, root, follow)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last checkpoint")
        raise SystemExit(130) from None
    except RuntimeError as error:
        say(error)
        raise SystemExit(1) from None
    say(f"run {wanted.run_id}: {record.collapse or 'done'}; record: {folder}")
