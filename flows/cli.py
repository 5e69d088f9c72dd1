"""The command line: each command builds a `Config` and a `Runtime` from its arguments and starts a flow.

Slow imports are inside the commands, so that `agepipe --help` answers at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import servers, serving
from flows.options import (
    EXPERIMENT,
    TRACKING,
    WORKSPACE,
    Data,
    Deploy,
    Device,
    Experiment,
    GpuTrials,
    ModelName,
    Processes,
    Refresh,
    Runner,
    Scheduler,
    Threads,
    Tracking,
    VariantNames,
    Workers,
    Workspace,
    path,
    text,
)  # fmt: skip
from flows.options import runtime as _runtime

if TYPE_CHECKING:
    from agepipe.config.runtime import Runtime
    from agepipe.config.stages import Config

app = typer.Typer(
    help="Train, evaluate, register and use an age-range classifier on UTKFace photographs.",
    epilog="Start here: agepipe run sample",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Example: agepipe run laptop --data UTKFace.tar.gz final.epochs=20")
def run(
    preset: Annotated[str, typer.Argument(help="sample, laptop, gpu or notebook.")] = "sample",
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change, as field=value.")] = None,
    data: Data = [],  # noqa: B006 - typer reads the default and never changes it
    variant: VariantNames = [],  # noqa: B006
    refresh: Refresh = [],  # noqa: B006
    device: Device = "auto",
    workers: Workers = 0,
    threads: Threads = 0,
    processes: Processes = None,
    gpu_trials: GpuTrials = 1,
    runner: Runner = "threads",
    scheduler: Scheduler = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
    experiment: Experiment = EXPERIMENT,
) -> None:
    """Run the full pipeline: photographs in, an evaluated and registered model out.

    A launcher such as torchrun or srun may start the same command on several machines, which then share the training.
    """
    from agepipe.config import presets
    from agepipe.training import launcher

    changes = presets.parse_overrides(overrides or [])
    if data:
        changes["source.data"] = tuple(data)
    configs = presets.load_each(preset, changes, presets.chosen(preset, variant))
    runtime = _runtime(
        workspace=workspace, tracking=tracking, experiment=experiment, device=device, workers=workers, threads=threads,
        processes=processes, gpu_trials=gpu_trials, runner=runner, scheduler=scheduler,
        refresh=tuple(refresh),
    )  # fmt: skip
    if (position := launcher.position()) is None:
        _run(configs, runtime)
        return
    from agepipe.training.ranks import met, ranked

    runtime = ranked(position, configs, runtime)
    with met(position, configs, runtime) as ranks:
        if position.rank == 0:
            _run(configs, runtime)
            return
        typer.echo(f"Rank {position.rank} of {position.count} takes part in the training of rank 0.")
        count = ranks.take_part()
        typer.echo(f"Rank {position.rank} of {position.count} has taken part in {count} training{'s' * (count != 1)}.")


def _run(configs: "Sequence[Config]", runtime: "Runtime") -> None:
    from agepipe.training.check import check
    from flows import refuse
    from flows.entry import enter

    for config in configs:
        check(config, runtime=runtime)
        refuse.run(config, runtime)
    server = enter(runtime)
    from flows import pipelines

    pipelines.run(configs, runtime, server)


@app.command(epilog="Example: agepipe evaluate champion --data holiday-photos/ --exclude-seen")
def evaluate(
    model: Annotated[str, typer.Argument(help="An alias, a version, a run, or a bundle folder.")] = "champion",
    data: Data = [],  # noqa: B006
    exclude_seen: Annotated[
        bool, typer.Option(help="Leave out rows that the model has seen; the report says how many.")
    ] = False,
    name: ModelName = "",
    refresh: Annotated[bool, typer.Option(help="Evaluate again even if the result is cached.")] = False,
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
    experiment: Experiment = EXPERIMENT,
) -> None:
    """Evaluate a model on its own locked test rows, or on other labelled photographs."""
    from flows import refuse
    from flows.entry import enter

    runtime = _runtime(
        workspace=workspace, tracking=tracking, experiment=experiment, refresh=("evaluate",) if refresh else ()
    )
    refuse.evaluate(model, data, name, runtime)
    server = enter(runtime)
    from flows import show
    from flows.evaluate import evaluate as flow

    if server:
        server.wait()
    with show.progress():
        evaluation = flow(model, tuple(data), name=name, exclude_seen=exclude_seen, runtime=runtime)
    show.evaluation(evaluation)


@app.command(epilog="Example: agepipe compare champion challenger")
def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more aliases, versions, runs, or bundle folders.")],
    data: Data = [],  # noqa: B006
    anew: Annotated[
        bool,
        typer.Option(
            help="If the models' test rows differ: use the first model's, without rows that another has seen."
        ),
    ] = False,
    name: ModelName = "",
    refresh: Annotated[bool, typer.Option(help="Compare again even if the result is cached.")] = False,
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
    experiment: Experiment = EXPERIMENT,
) -> None:
    """Compare models with the first of them, on the same test rows."""
    from flows import refuse
    from flows.entry import enter

    runtime = _runtime(
        workspace=workspace, tracking=tracking, experiment=experiment, refresh=("compare",) if refresh else ()
    )
    refuse.compare(models, data, name, anew, runtime)
    server = enter(runtime)
    from flows import show
    from flows.compare import compare as flow

    if server:
        server.wait()
    with show.progress():
        done = flow(tuple(models), tuple(data), anew=anew, name=name, runtime=runtime)
    show.contrasted(done)


@app.command(epilog="Example: agepipe release challenger margin=0.3")
def release(
    candidate: Annotated[str, typer.Argument(help="An alias, a version, or a run.")] = "challenger",
    overrides: Annotated[list[str] | None, typer.Argument(help="Release settings to change, as field=value.")] = None,
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
    experiment: Experiment = EXPERIMENT,
) -> None:
    """Promote a version if it is significantly better than the champion on the same rows; says why or why not."""
    from agepipe.config import presets
    from agepipe.config.base import changed
    from agepipe.config.stages import ReleaseSettings
    from flows import refuse
    from flows.entry import enter

    settings = changed(ReleaseSettings(), presets.parse_overrides(overrides or []), "release")
    runtime = _runtime(workspace=workspace, tracking=tracking, experiment=experiment)
    refuse.release(candidate, name, runtime)
    server = enter(runtime)
    from flows import show
    from flows.release import release as flow

    if server:
        server.wait()
    with show.progress():
        done = flow(candidate, name, settings, runtime=runtime)
    show.registered(done)


@app.command(epilog="Example: agepipe audit UTKFace.tar.gz")
def audit(
    data: Annotated[
        list[str], typer.Argument(**text("DATA"), help="Folders or archives of UTKFace photographs, or sample.")
    ],
    ranges: Annotated[
        str, typer.Option(help="utkface, years, or ranges separated by commas: 1-17,18-64,over64.")
    ] = "utkface",
    workspace: Workspace = WORKSPACE,
) -> None:
    """Report what a folder or archive of photographs contains, without training."""
    runtime = _runtime(workspace=workspace)
    from agepipe.serving.outputs import check_folder
    from flows import show

    check_folder("--workspace", runtime.workspace)
    runtime.mirror.check()
    show.audit(data, ranges, runtime)


@app.command("import", epilog="Example: agepipe import checkpoint.pt --order text --network resnet50 --size 200")
def import_(
    file: Annotated[
        Path,
        typer.Argument(**path("FILE"), help="State dict of a torchvision classifier with head v1, v2, v3 or linear."),
    ],
    order: Annotated[
        str,
        typer.Option(
            help="Order of the outputs. age: youngest first; text: names sorted as text, as ImageFolder does: 0, 1, 10."
        ),
    ],
    network: Annotated[str, typer.Option(help="Name of the torchvision classifier.")] = "resnet50",
    size: Annotated[int, typer.Option(help="Side of its input in px.")] = 200,
    ranges: Annotated[
        str, typer.Option(help="Its classes: utkface, years, or ranges separated by commas: 1-17,18-64,over64.")
    ] = "utkface",
    mean: Annotated[
        str, typer.Option(help="Mean of each channel in its training's normalisation, in [0, 1].")
    ] = "0.485,0.456,0.406",
    std: Annotated[str, typer.Option(help="Standard deviation of each channel, in [0, 1].")] = "0.229,0.224,0.225",
    name: ModelName = "agepipe",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
    experiment: Experiment = EXPERIMENT,
) -> None:
    """Register a network that was trained elsewhere; only `agepipe promote` makes it the champion."""
    from agepipe.registry import import_model
    from flows.entry import check_writable

    runtime = _runtime(workspace=workspace, tracking=tracking, experiment=experiment)
    given = {"network": network, "size": size, "order": order, "ranges": ranges, "mean": mean, "std": std, "name": name}
    said = import_model.answers(given)
    check_writable(runtime)
    done = import_model.adopt(file, said, runtime)
    typer.echo(f"{done.name} version {done.version} as @{done.alias}: {done.reason}")


@app.command(epilog='Example: agepipe promote 3 --because "better on the new camera"')
def promote(
    version: Annotated[int, typer.Argument(help="The version that becomes the champion.")],
    because: Annotated[str, typer.Option(help="The reason, which is stored with the version.")],
    deploy: Deploy = True,
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
) -> None:
    """Make a version the champion without a comparison, and deploy it."""
    from agepipe.registry import register

    runtime = _runtime(workspace=workspace, tracking=tracking)
    done = register.promote(name, version, because, runtime)
    typer.echo(f"{done.name} version {version} is now the champion.")
    if deploy:
        serving.follow(done.name, version, runtime)


@app.command(epilog="Example: agepipe rollback")
def rollback(
    deploy: Deploy = True, name: ModelName = "", workspace: Workspace = WORKSPACE, tracking: Tracking = TRACKING
) -> None:
    """Make the previous champion the champion again, and deploy it."""
    from agepipe.registry import lookup, register

    runtime = _runtime(workspace=workspace, tracking=tracking)
    name = lookup.named(name, runtime)
    version = register.rollback(name, runtime)
    typer.echo(f"{name} version {version} is the champion again.")
    if deploy:
        serving.follow(name, version, runtime)


serving.add(app)
servers.add(app)


def main() -> None:
    """Run the command line; an error that a user can act on is printed as one sentence, without a traceback."""
    from flows import failures, shell

    shell.readable()
    shell.bypass_proxies()
    try:
        app()
    except Exception as error:
        if (known := failures.understood(error)) is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to continue.", file=sys.stderr)
        sys.exit(130)
