"""Predict the faces of photographs as a table, with the reasons for files that cannot be used.

Faces are detected, aligned to the geometry of UTKFace's chips, and scaled as ingest does; photographs that are such
chips already are only scaled.
"""

from collections.abc import Iterable, Iterator, Sequence
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
from agepipe.serving.outputs import save
from agepipe.serving.pictures import Picture

SUFFIXES = (".csv", ".parquet", ".jsonl")
"""Suffixes of the tables that `write` can write."""
NO_FACE = "no face"
SMALL = "face too small"
SCHEMA = {
    "path": pl.String, "face": pl.Int32, "range": pl.String, "probability": pl.Float64, "age": pl.Float64,
    "low": pl.Int32, "high": pl.Int32,
}  # fmt: skip
REJECTS = {"path": pl.String, "reason": pl.String, "detail": pl.String}


class Predictions(NamedTuple):
    """The predictions, and the files that could not be used."""

    faces: pl.DataFrame
    """A row for each face: `path`, `face` (from 1, by size), `range`, `probability`, `age` in years, `low` and `high`
    (first and last year of the 90 % prediction set; `high` is null if the set is open-ended, both if the model was not
    calibrated), and with `all_ranges` a column of probabilities for each range, in class order."""
    rejects: pl.DataFrame
    """`path`, `reason` and `detail` of each file without a prediction or with faces that are too small."""


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
        locations: paths of photographs, folders and archives.
        detector: the face detector; None takes each photograph as one face, cropped as UTKFace's chips are.
        all_ranges: whether the table has the probability of each range.
        progress: called after each file.

    Raises:
        SourceError: a path does not exist.
        ModelError: the network fails.
    """
    pictures.check(locations)
    found = pictures.read(locations)
    return predicted(predictor, found, pictures.count(locations), detector, all_ranges=all_ranges, progress=progress)


def predicted(
    predictor: Predictor,
    photographs: Iterable[Picture],
    total: int,
    detector: FaceDetector | None,
    *,
    all_ranges: bool = False,
    progress: Progress = silent,
) -> Predictions:
    """Predict every face of photographs that are read one after the other, of which there are about `total`.

    Raises:
        ModelError: the network fails.
    """
    size, ranges = predictor.card.size, predictor.card.ranges
    columns = [*SCHEMA, *(ranges.words if all_ranges else ())]
    none = Prediction(np.empty((0, len(ranges)), np.float32), np.empty(0, np.float32))
    rejects: list[Picture] = []
    tables = [_table([], none, predictor.card).select(columns)]
    pending: list[tuple[str, int, Image]] = []
    for done, picture in enumerate(photographs, start=1):
        faces = None if picture.image is None or detector is None else detector.search(picture.image)
        chips = list(_chips(picture, faces))
        if not chips or (faces and not all(face.large_enough for face in faces)):
            rejects.append(_rejected(picture, faces))
        pending += [(picture.path, number, fit(chip, size)) for number, chip in enumerate(chips, start=1)]
        if len(pending) >= BATCH:
            tables.append(_predicted(pending, predictor).select(columns))
            pending = []
        progress(done, total, f"{len(rejects)} not usable" if rejects else "")
    if pending:  # `total` may be wrong, because files may be added and removed meanwhile
        tables.append(_predicted(pending, predictor).select(columns))
    rows = [(picture.path, picture.reason, picture.detail) for picture in rejects]
    return Predictions(pl.concat(tables), pl.DataFrame(rows, schema=REJECTS, orient="row"))


def _chips(picture: Picture, faces: Sequence[Face] | None) -> Iterator[Image]:
    """The aligned faces that are large enough; the picture itself if `faces` is None."""
    if picture.image is None:
        return
    if faces is None:
        yield picture.image
        return
    for face in faces:
        if face.large_enough:
            yield align(picture.image, face.landmarks)


def _rejected(picture: Picture, faces: Sequence[Face] | None) -> Picture:
    """The reason why a picture or some of its faces have no prediction, in px of the file."""
    if picture.image is None:
        return picture
    height, width, least = (round(side * picture.scale) for side in (*picture.image.shape[:2], MIN_FACE))
    if small := [face for face in faces or () if not face.large_enough]:
        detail = f"{len(small)} of {len(faces or ())} faces in {width}×{height} px are smaller than {least} px."
        return Picture(picture.path, None, SMALL, detail)
    return Picture(picture.path, None, NO_FACE, f"none was found in {width}×{height} px.")


def _predicted(chips: Sequence[tuple[str, int, Image]], predictor: Predictor) -> pl.DataFrame:
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


def write(table: pl.DataFrame | pl.LazyFrame, path: Path) -> Path:
    """Write a table atomically, in the format of its suffix; `.csv` starts with a byte order mark for Excel.

    A lazy table is read while it is written, so that it need not fit into memory.

    Raises:
        OutputError: the table was written to another path, which is named.
    """

    def write_draft(draft: Path) -> None:
        match path.suffix.lower():
            case ".parquet":
                table.lazy().sink_parquet(draft)
            case ".jsonl":
                table.lazy().sink_ndjson(draft)
            case _:
                table.lazy().sink_csv(draft, include_bom=True, float_precision=6)

    return save(path, write_draft)


def rejects_path(output: Path) -> Path:
    """Path of the table of files that could not be used, in the folder of the output."""
    return output.with_name(f"{output.stem}.rejects.csv")
