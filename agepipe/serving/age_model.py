"""The Python interface to a trained model: load it by name or folder, predict the ages of faces in photographs."""

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from agepipe.config.base import checked
from agepipe.config.runtime import Runtime
from agepipe.core.errors import DataError, ImageError
from agepipe.model.ages import AgeRanges
from agepipe.model.decoding import decide
from agepipe.model.imaging import Image, fit
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup
from agepipe.serving import pictures
from agepipe.serving.align import align
from agepipe.serving.detect.detector import FaceDetector, load_detector

Photograph = str | PathLike[str] | NDArray[np.uint8]
"""Path of a JPEG, PNG, WebP or BMP file, or RGB pixels, uint8 `(height, width, 3)`."""


Box = tuple[float, float, float, float]
"""Left, top, width and height of a face, px of the photograph."""


class FaceAge(NamedTuple):
    """The predicted age of one face."""

    range: str
    """Name of the predicted range, one of `AgeModel.ranges.names`, such as `28-33`."""
    probability: float
    """Probability of that range, 0 to 1."""
    age: float
    """Age in years; it lies in `range`."""
    low: int | None
    """First year of the 90 % prediction set; None if the model was not calibrated."""
    high: int | None
    """Last year of the 90 % prediction set; None if the set is open-ended or the model was not calibrated."""
    box: Box | None
    """The bounding box, which may extend beyond the photograph; None for an aligned chip."""


class AgeModel:
    """A loaded model; use `load` to get one. An instance must not be used by several threads at once."""

    def __init__(self, folder: Path, runtime: Runtime, threads: int = 1) -> None:
        """Load a bundle.

        Args:
            folder: folder of the bundle.
            runtime: its workspace holds the face detector's file.
            threads: threads of the network.

        Raises:
            ModelError: a file of the bundle is missing or damaged.
        """
        self._predictor, self._runtime = Predictor.load(folder, threads), runtime

    @property
    def ranges(self) -> AgeRanges:
        """The age ranges that the model distinguishes, in class order."""
        return self._predictor.card.ranges

    @cached_property
    def _detector(self) -> FaceDetector:
        detector, notes = load_detector(self._runtime)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return detector

    @overload  # a path given as text is an iterable of texts as well; the first signature applies
    def predict(self, photographs: Photograph, *, aligned: bool = False) -> list[FaceAge]: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, photographs: Iterable[Photograph], *, aligned: bool = False) -> list[list[FaceAge]]: ...
    def predict(
        self, photographs: Photograph | Iterable[Photograph], *, aligned: bool = False
    ) -> list[FaceAge] | list[list[FaceAge]]:
        """Predict the age of every face in one photograph, or in each of several.

        The first call without `aligned` loads the face detector. Its file is downloaded into the workspace once;
        without it, OpenCV's Haar cascade is used and a `UserWarning` says so.

        Args:
            photographs: a path or an RGB uint8 array `(height, width, 3)`, or an iterable of these.
            aligned: take each photograph as one face, cropped as UTKFace's chips are, without face detection.

        Returns:
            For one photograph the list of its faces, largest first; for several one such list each, in their order.
            Faces smaller than 24 px are left out.

        Raises:
            SourceError: a path does not exist.
            ImageError: a file cannot be used as a photograph; the message names it.
            DataError: an array has another dtype or shape.
            ModelError: the network fails, or the face detector's file is not the expected one.
        """
        if isinstance(photographs, str | PathLike | np.ndarray):
            return self._faces(photographs, aligned)
        return [self._faces(photograph, aligned) for photograph in photographs]

    def _faces(self, photograph: Photograph, aligned: bool) -> list[FaceAge]:
        image, scale = _pixels(photograph)
        if aligned:
            return self._ages([image], [None])
        faces = [face for face in self._detector.search(image) if face.large_enough]
        boxes = [cast(Box, tuple(map(float, face.box * scale))) for face in faces]
        return self._ages([align(image, face.landmarks) for face in faces], boxes)

    def _ages(self, chips: Sequence[Image], boxes: Sequence[Box | None]) -> list[FaceAge]:
        if not chips:
            return []
        card = self._predictor.card
        prediction = self._predictor.predict(np.stack([fit(chip, card.size) for chip in chips]))
        labels = decide(prediction.probabilities, card.decoding)
        return [
            FaceAge(card.ranges.names[label], float(row[label]), float(age), low, high, box)
            for label, row, age, (low, high), box in zip(
                labels,
                prediction.probabilities,
                prediction.years,
                card.spans(prediction.probabilities),
                boxes,
                strict=True,
            )
        ]


def load(
    model: str | PathLike[str] = "champion",
    *,
    name: str = "",
    workspace: str | PathLike[str] | None = None,
    tracking: str | None = None,
    threads: int = 1,
) -> AgeModel:
    """Load a model.

    Args:
        model: an alias (`champion`), a version (`3`), `models:/NAME@ALIAS`, `models:/NAME/VERSION`, a run id, or the
            folder of a bundle.
        name: name of the registered model; empty takes `agepipe`, or the only one in the store.
        workspace: workspace folder; None takes AGEPIPE_WORKSPACE, else `workspace`.
        tracking: MLflow tracking URI; None takes AGEPIPE_TRACKING, else `sqlite:///mlruns/mlflow.db`.
        threads: threads of the network; more than one is slower where other programs use the cores.

    Raises:
        ModelError: there is no such model, or a file of it is missing or damaged.
        TrackingError: the store cannot be read, or the server does not answer.
        ConfigError: `workspace` or `tracking` cannot be used.
    """
    given = {"workspace": workspace, "tracking": tracking}
    runtime = checked(Runtime, {field: value for field, value in given.items() if value is not None}, "argument")
    return AgeModel(lookup.resolve(str(model), runtime, name).folder, runtime, threads)


def _pixels(photograph: Photograph) -> tuple[Image, float]:
    """The photograph as RGB pixels, and the number of the file's pixels for each of them along a side."""
    if not isinstance(photograph, np.ndarray):
        found = pictures.read_file(Path(photograph).expanduser())
        if found.image is None:
            raise ImageError(found.reason, f"{found.path}: {found.detail}")
        return found.image, found.scale
    if photograph.dtype != np.uint8 or photograph.ndim != 3 or photograph.shape[2] != 3 or not photograph.size:
        raise DataError(
            f"photographs: {photograph.dtype} {photograph.shape}, but an array must be RGB, uint8 (height, width, 3); "
            "convert it."
        )
    return photograph, 1.0
