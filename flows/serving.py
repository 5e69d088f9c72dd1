"""The commands that use a model: predict. None of them needs torch or Prefect."""

from pathlib import Path
from typing import Annotated

import typer

from flows.options import TRACKING, WORKSPACE, ModelName, Tracking, Workspace, where

Reference = Annotated[str, typer.Option("--model", help="An alias, a version, a run, or the folder of a bundle.")]
SHOWN = 10
"""Files that could not be used are named in the terminal up to this number; the rest are in the list beside."""


def predict(
    paths: Annotated[list[Path], typer.Argument(help="Photographs, folders, or archives of them.")],
    output: Annotated[Path, typer.Option(help="Table to write: .csv, .parquet or .jsonl.")],
    model: Reference = "champion",
    aligned: Annotated[bool, typer.Option(help="Take pictures as chips that are cut as UTKFace's are.")] = False,
    all_ranges: Annotated[bool, typer.Option(help="Write the probability of every range.")] = False,
    name: ModelName = "",
    workspace: Workspace = WORKSPACE,
    tracking: Tracking = TRACKING,
) -> None:
    """Say the age range of every face in photographs."""
    from agepipe import lookup
    from agepipe.serve import pictures
    from agepipe.serve import predict as work
    from agepipe.serve.faces import Detector
    from agepipe.serve.predictor import Predictor
    from agepipe.serve.yunet import located
    from flows import show
    from tasks.watch import watch

    place = where(workspace=workspace, tracking=tracking)
    work.check_output(output)
    pictures.check(paths)
    predictor = Predictor.load(lookup.resolve(model, place, name).folder, place.thread_count)
    detector = None if aligned else Detector(located(place))
    with show.progress():
        found = work.predict(predictor, paths, detector, all_ranges=all_ranges, progress=watch("predict"))
    work.write(found.faces, output)
    typer.echo(f"{len(found.faces)} faces of {found.faces['path'].n_unique()} photographs are in {output}.")
    if len(found.rejects):
        listed = work.write(found.rejects, work.rejects_path(output))
        typer.echo(f"{len(found.rejects)} files have no row; they are in {listed} with the reason:", err=True)
        for path, reason, detail in found.rejects.head(SHOWN).iter_rows():
            typer.echo(f"  {path}: {reason}: {detail}", err=True)


def add(app: typer.Typer) -> None:
    """Put the commands on the command line."""
    app.command(epilog="Example: agepipe predict holiday/ --output ages.csv")(predict)
