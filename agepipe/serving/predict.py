"""Ranges and ages for photographs: every face of every file, as a table; what cannot be used, with its reason.

A face is found, brought to the geometry that the network was trained on, and scaled as ingest scales; pictures that
are such chips already are only scaled.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from agepipe.core.progress import Progress, silent
from agepipe.model.bundle import Card
from agepipe.model.decoding import decide
from agepipe.model.imaging import Image, fit
from agepipe.model.predictor import BATCH, Prediction, Predictor
from agepipe.serving import pictures
from agepipe.serving.align import align
from agepipe.serving.detect.detector import FaceDetector
from agepipe.serving.detect.face import MIN_FACE, Face
from agepipe.serving.outputs import saved
from agepipe.serving.pictures import Picture

SUFFIXES = (".csv", ".parquet", ".jsonl")
"""Kinds of table that `write` writes."""
NO_FACE = "no face"
SMALL = "face too small"
SCHEMA = {
    "path": pl.String, "face": pl.Int32, "range": pl.String, "probability": pl.Float64, "age": pl.Float64,
    "low": pl.Int32, "high": pl.Int32,
}  # fmt: skip
REJECTS = {"path": pl.String, "reason": pl.String, "detail": pl.String}


class Predictions(NamedTuple):
    """What was said, and what could not be used."""

    faces: pl.DataFrame
    """One row a face: `path`, `face` (1 is the largest of its picture), `range`, `probability`, `age` in years, `low`
    and `high` (first and last year of the 90 % set; `high` is null for an open range, both where nothing was
    calibrated), and where asked for one column of probabilities a range, in class order."""
    rejects: pl.DataFrame
    """`path`, `reason`, `detail` of every file without a row, and of every file with faces that are too small."""


def predict(
    predictor: Predictor,
    locations: Sequence[Path],
    detector: FaceDetector | None,
    *,
    all_ranges: bool = False,
    progress: Progress = silent,
) -> Predictions:
    """Predict every face of photographs.

    Args:
        predictor: the model.
        locations: photographs, folders and archives.
        detector: finds the faces; None takes each picture as one chip that is cut as UTKFace's are.
        all_ranges: whether to give the probability of each range.
        progress: told after each file.

    Raises:
        SourceError: a path does not exist.
        ModelError: the network fails.
    """
    pictures.check(locations)
    total, size, ranges = pictures.count(locations), predictor.card.size, predictor.card.ranges
    rejects: list[Picture] = []
    tables = [_table([], Prediction(np.empty((0, len(ranges)), np.float32), np.empty(0, np.float32)), predictor.card)]
    waiting: list[tuple[str, int, Image]] = []
    for done, picture in enumerate(pictures.read(locations), start=1):
        faces = None if picture.image is None or detector is None else detector.search(picture.image)
        chips = list(_chips(picture, faces))
        if not chips or (faces and not all(face.large_enough for face in faces)):
            rejects.append(_rejected(picture, faces))
        waiting += [(picture.path, number, fit(chip, size)) for number, chip in enumerate(chips, start=1)]
        if len(waiting) >= BATCH:
            tables.append(_answered(waiting, predictor))
            waiting = []
        progress(done, total, f"{len(rejects)} not usable" if rejects else "")
    if waiting:  # not by the count: files come and go while others are read
        tables.append(_answered(waiting, predictor))
    found = pl.concat(tables)
    rows = [(picture.path, picture.reason, picture.detail) for picture in rejects]
    shown = found if all_ranges else found.select(list(SCHEMA))
    return Predictions(shown, pl.DataFrame(rows, schema=REJECTS, orient="row"))


def _chips(picture: Picture, faces: Sequence[Face] | None) -> Iterator[Image]:
    """The faces that can be answered; the whole picture where none were looked for."""
    if picture.image is None:
        return
    if faces is None:
        yield picture.image
        return
    for face in faces:
        if face.large_enough:
            yield align(picture.image, face.landmarks)


def _rejected(picture: Picture, faces: Sequence[Face] | None) -> Picture:
    """The picture without its pixels, and why it, or some of its faces, have no row; lengths are the file's px."""
    if picture.image is None:
        return picture
    height, width, least = (round(side * picture.scale) for side in (*picture.image.shape[:2], MIN_FACE))
    if small := [face for face in faces or () if not face.large_enough]:
        detail = f"{len(small)} of {len(faces or ())} faces in {width}×{height} px are smaller than {least} px."
        return Picture(picture.path, None, SMALL, detail)
    return Picture(picture.path, None, NO_FACE, f"none was found in {width}×{height} px.")


def _answered(chips: Sequence[tuple[str, int, Image]], predictor: Predictor) -> pl.DataFrame:
    return _table(chips, predictor.predict(np.stack([chip for *_, chip in chips])), predictor.card)


def _table(chips: Sequence[tuple[str, int, Image]], found: Prediction, card: Card) -> pl.DataFrame:
    best, ranges = decide(found.probabilities, card.decoding), card.ranges
    spans = card.spans(found.probabilities)
    columns = {
        "path": [path for path, *_ in chips],
        "face": [number for _, number, _ in chips],
        "range": [ranges.words[label] for label in best],
        "probability": found.probabilities[np.arange(len(best)), best].astype(float),
        "age": found.years.astype(float),
        "low": [low for low, _ in spans],
        "high": [high for _, high in spans],
    }
    each = {name: found.probabilities[:, label].astype(float) for label, name in enumerate(ranges.words)}
    return pl.DataFrame(columns | each, schema=SCHEMA | dict.fromkeys(ranges.words, pl.Float64))


def write(table: pl.DataFrame, path: Path) -> Path:
    """Write a table whole or not at all, as its name says; `.csv` begins with the mark that Excel knows UTF-8 by.

    Raises:
        OutputError: it had to be written elsewhere; says where.
    """

    def written(draft: Path) -> None:
        match path.suffix.lower():
            case ".parquet":
                table.write_parquet(draft)
            case ".jsonl":
                table.write_ndjson(draft)
            case _:
                table.write_csv(draft, include_bom=True, float_precision=6)

    return saved(path, written)


def rejects_path(output: Path) -> Path:
    """Where the files that could not be used are listed: beside the output."""
    return output.with_name(f"{output.stem}.rejects.csv")
