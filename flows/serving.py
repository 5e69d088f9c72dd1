"""The commands that use a model: predict, deploy, camera, web. None but deploy imports Prefect, and none torch."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agepipe.core.words import counted
from flows.options import (
    TRACKING,
    WORKSPACE,
    Device,
    ModelName,
    Scheduler,
    Tracking,
    Workspace,
    path,
    runtime,
    text,
)  # fmt: skip

if TYPE_CHECKING:  # polars and numpy take longer to import than the help may take to answer
    import polars as pl

    from agepipe.config.runtime import Runtime

Reference = Annotated[str, typer.Option("--model", help="An alias, a version, a run, or a bundle folder.")]
Endpoint = Annotated[
    str, typer.Option(help="Address of a running `mlflow models serve` to use instead of a local model.")
]
SHARD = 4096
"""Default number of photographs in a part: a multiple of the network's batch."""
SHOWN = 10
"""Maximum number of unusable files named in the terminal; the list of rejects has all."""

UNREADABLE = 3
"""Exit status if a file, folder, archive or video could not be read to its end, so that results are missing."""


def predict(
    paths: Annotated[list[Path], typer.Argument(**path("PATH"), help="Photographs, folders, or archives of them.")],
    output: Annotated[Path, typer.Option(**path("--output"), help="Table to write: .csv, .parquet or .jsonl.")],
    model: Reference = "champion",
    aligned: Annotated[
        bool, typer.Option(help="Treat each picture as an aligned face, cropped as in UTKFace.")
    ] = False,
    all_ranges: Annotated[bool, typer.Option(help="Write the probability of every range.")] = False,
    runner: Annotated[
        str,
        typer.Option(
            help="Predict many photographs in parts, on threads, processes or dask; a killed command continues."
        ),
    ] = "",
    shard: Annotated[int, typer.Option(min=1, help="Photographs in a part of --runner.")] = SHARD,
    workers: Annotated[int, typer.Option(help="Parts of --runner at a time; 0 means one per core.")] = 0,
    scheduler: Scheduler = "",
    device: Device = "auto",
    refresh: Annotated[bool, typer.Option(help="Predict the parts of --runner again.")] = False,
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
) -> None:
    """Estimate the age range of every face in photographs."""
    from agepipe.core.errors import ConfigError
    from agepipe.model.predictor import Predictor
    from agepipe.registry import lookup
    from agepipe.serving import pictures
    from agepipe.serving import predict as work
    from agepipe.serving.detect.detector import load_detector
    from agepipe.serving.outputs import check_output
    from flows import show
    from tasks.watch import watch

    given = {"workers": workers, "scheduler": scheduler, "refresh": refresh, "shard": shard if shard != SHARD else 0}
    if not runner and (idle := [option for option, value in given.items() if value]):
        raise ConfigError(f"--{idle[0]}: '{given[idle[0]]}' does nothing without --runner; give, say, processes.")
    place = runtime(
        workspace=workspace, tracking=tracking, runner=runner or "threads", workers=workers, scheduler=scheduler,
        device=device, refresh=("predict",) if refresh else (),
    )  # fmt: skip
    for file in (output, work.rejects_path(output)):
        check_output("--output", file, work.SUFFIXES)
    pictures.check(paths)
    bundle = lookup.resolve(model, place, name).folder
    if runner:
        _predict_in_parts(tuple(paths), output, model, name, aligned, all_ranges, shard, place)
        return
    predictor = Predictor.load(bundle, place.thread_count, device)
    detector, told = (None, []) if aligned else load_detector(place)
    for note in told:
        typer.echo(note, err=True)
    with show.progress():
        found = work.predict(predictor, paths, detector, all_ranges=all_ranges, progress=watch("predict"))
    _written(found.faces, len(found.faces), found.faces["path"].n_unique(), found.rejects, output)
    if pictures.UNREADABLE in found.rejects["reason"]:
        raise typer.Exit(UNREADABLE)


def _predict_in_parts(
    paths: tuple[Path, ...], output: Path, model: str, name: str, aligned: bool, all_ranges: bool, shard: int,
    place: "Runtime",
) -> None:  # fmt: skip
    """Predict in parts and write them as one table, which is never in memory as a whole."""
    from agepipe.serving import pictures, shards
    from flows.entry import enter

    server = enter(place, tracked=False)
    from flows import show
    from flows.predict import predict as flow

    if server:
        server.wait()
    with show.progress():
        parts = flow(paths, model, name, aligned=aligned, shard=shard, runtime=place)
    table, rejects = shards.combined(parts, all_ranges=all_ranges)
    _written(table, sum(part.faces for part in parts), sum(part.photographs for part in parts), rejects, output)
    if pictures.UNREADABLE in rejects["reason"]:
        raise typer.Exit(UNREADABLE)


def _written(
    table: "pl.DataFrame | pl.LazyFrame", faces: int, photographs: int, rejects: "pl.DataFrame", output: Path
) -> None:
    """Write both tables, each as well where the other cannot be.

    Raises:
        OutputError: says of each table that could not be written where it is.
    """
    from agepipe.core.errors import OutputError
    from agepipe.core.system_errors import of_system
    from agepipe.serving import predict as work

    def write_faces() -> None:
        work.write(table, output)
        many = f"{counted(faces, 'face')} of {counted(photographs, 'photograph')}"
        typer.echo(f"{many} {'is' if faces == 1 else 'are'} in {output}.")

    failed = list[str]()
    for write in (write_faces, lambda: _told_rejects(rejects, work.rejects_path(output))):
        try:
            write()
        except OutputError as error:
            failed.append(str(error))
        except OSError as error:
            failed.append(str(of_system(error)))
    if failed:
        raise OutputError(" ".join(failed))


def _told_rejects(rejects: "pl.DataFrame", path: Path) -> None:
    """Write down the files that have no row, and name the first of them."""
    from agepipe.data import archives
    from agepipe.serving import predict as work

    if len(rejects):
        listed = work.write(rejects, path)
        have, are = ("has", "it is") if len(rejects) == 1 else ("have", "they are")
        told = (
            f"{counted(len(rejects), 'file')} {have} no row, or faces without one; {are} in {listed} with the reason:"
        )
        typer.echo(told, err=True)
        for file, reason, detail in rejects.head(SHOWN).iter_rows():
            typer.echo(f"  {archives.printable(file)}: {reason}: {archives.printable(detail)}", err=True)


def deploy(
    model: Annotated[str, typer.Argument(help="An alias or a version.")] = "champion",
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
) -> None:
    """Deploy a registered version to the cameras; running cameras switch to it."""
    from agepipe.serving.deploy import find, folder_of
    from flows.entry import enter

    place = runtime(workspace=workspace, tracking=tracking)
    find(model, place, name)
    server = enter(place, tracked=False)
    from flows.deploy import deploy as flow

    if server:
        server.wait()
    done = flow(model, name, place)
    typer.echo(f"{done.title} is deployed in {folder_of(place) / done.folder}.")


def follow(name: str, version: int, place: "Runtime") -> None:
    """Deploy a new champion; if that fails it remains the champion.

    Raises:
        ModelError: it cannot be deployed; includes the reason.
    """
    from agepipe.core.errors import AgepipeError, ModelError
    from agepipe.serving import deploy as work

    try:
        done = work.deploy(str(version), place, name)
    except AgepipeError as error:
        raise ModelError(
            f"{name} version {version} is the champion but was not deployed; cameras keep their model: {error}"
        ) from error
    typer.echo(f"{done.title} is deployed in {work.folder_of(place) / done.folder}.")


def camera(
    source: Annotated[
        str, typer.Option(**text("--source"), help="Webcam (0), video, stream (rtsp://…), folder or picture.")
    ] = "0",
    model: Annotated[
        str, typer.Option(help="An alias, a version, a run, or a bundle folder; by default the deployed version.")
    ] = "",
    endpoint: Endpoint = "",
    headless: Annotated[bool, typer.Option(help="Do not open a window.")] = False,
    output: Annotated[
        Path | None, typer.Option(**path("--output"), help="Annotated video (.mp4) or last picture (.jpg, .png).")
    ] = None,
    events: Annotated[
        Path | None, typer.Option(**path("--events"), help="File for one line of JSON per face and frame (.jsonl).")
    ] = None,
    frames: Annotated[int, typer.Option(help="Number of frames after which it ends; 0 means no limit.", min=0)] = 0,
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
) -> None:
    """Estimate the age range of faces, live or in a video. Keys: q quit, s snapshot, p pause, h help."""
    from agepipe.serving import camera_session
    from flows import show
    from tasks.watch import watch

    asked = camera_session.CameraOptions(
        source=source, model=model, endpoint=endpoint, headless=headless, output=output, events=events, frames=frames,
        name=name,
    )  # fmt: skip
    with show.progress():
        done = camera_session.run(asked, runtime(workspace=workspace, tracking=tracking), watch("camera"))
    for note in done.notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{counted(done.frames, 'frame')}, {counted(len(done.tracks), 'face')}, {done.rate:.1f} frames/s, by "
        f"{', '.join(done.models)} on faces found by {done.detector}."
        + (f" Written to {output}." if output and output.exists() else "")
    )
    if done.incomplete:
        raise typer.Exit(UNREADABLE)


def web(
    model: Annotated[
        str, typer.Option(help="An alias, a version, a run, or a bundle folder; by default the deployed version.")
    ] = "",
    endpoint: Endpoint = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 127.0.0.1 is reachable from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 means any free port.", min=0, max=65535)] = 8000,
    token: Annotated[
        str,
        typer.Option(
            envvar="AGEPIPE_WEB_TOKEN",
            show_envvar=True,
            help="What a browser must know: it opens the page once with ?token=TOKEN at the end of the address.",
        ),
    ] = "",
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
) -> None:
    """Serve a page that shows the age ranges of faces in front of the browser's camera; no picture is stored."""
    from agepipe.core.ports import bound
    from agepipe.serving.camera_session import CameraOptions
    from agepipe.serving.web import server as work
    from agepipe.serving.web.token_check import check_token
    from flows import show

    check_token(token)
    place = runtime(workspace=workspace, tracking=tracking)
    with bound("--port", host, port) as listener:
        with show.waiting("Loading the model"):
            shared = work.prepare(CameraOptions(model=model, endpoint=endpoint, name=name), place)
            status = shared.status()
        with suppress(KeyboardInterrupt):  # Ctrl-C is the documented way to end it
            typer.echo(f"{status['model'] or 'No model yet'} is at {work.address(listener)}, until Ctrl-C.")
            for note in (status["problem"], *shared.detector_notes, work.warning(listener, token)):
                if note:
                    typer.echo(note, err=True)
            work.serve(shared, host, listener, token)
    for note in shared.notes():
        typer.echo(note, err=True)
    typer.echo("Ended.")


def add(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: agepipe predict holiday/ --output ages.csv")(predict)
    app.command(epilog="Example: agepipe deploy champion")(deploy)
    app.command(epilog="Example: agepipe camera --source party.mp4 --headless --output annotated.mp4")(camera)
    app.command(epilog="Example: agepipe web --port 8080")(web)
