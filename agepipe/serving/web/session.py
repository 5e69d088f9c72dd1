"""The web page's connections: each receives encoded pictures and returns records of the faces; nothing is stored.

All connections share one model and one detector, which one thread uses at a time. Each connection has its own tracks.
"""

import threading
import time
from collections.abc import Callable, Sequence

from agepipe.core.errors import AgepipeError, DataError, ModelError, ServiceError
from agepipe.model.bundle import Card
from agepipe.model.imaging import Limits, photograph
from agepipe.serving.camera import Camera, ModelSource
from agepipe.serving.detect.detector import FaceDetector
from agepipe.serving.sources import Frame
from agepipe.serving.tracker import Track

LIMITS = Limits(max_pixels=8_500_000)
"""Larger pictures than 3840×2160 px are scaled down, because other connections wait meanwhile."""
MAX_PICTURE = 4 * 2**20
"""Largest encoded picture, bytes; the page sends about 40 kB."""
PAUSE = 5.0
"""Time after which loading a model is tried again, s."""
Record = dict[str, object]
"""A message of the server, as JSON values."""


class SharedModel:
    """The model and the detector of all connections; must not be used by several threads at once."""

    def __init__(
        self, load_model: Callable[[], ModelSource], detector: FaceDetector, detector_notes: Sequence[str] = ()
    ) -> None:
        """Store the arguments; call `load` to load the model.

        Args:
            load_model: loads the model.
            detector: the face detector.
            detector_notes: notes on the detector for the user.
        """
        self.detector, self.detector_notes = detector, detector_notes
        self._load_model, self._problem, self._retry_at = load_model, "The model is being loaded.", 0.0
        self._model: ModelSource | None = None
        self._thread: threading.Thread | None = None
        self._losses = 0

    def load(self) -> None:
        """Load the model; if that fails, `model` raises the reason."""
        try:
            self._model = self._load_model()
        except AgepipeError as error:
            self._problem = str(error)
        self._retry_at = time.monotonic() + PAUSE

    def discard(self, error: ServiceError) -> None:
        """Discard the model of a server that failed or serves another model; the next picture loads it again."""
        self._model, self._problem, self._retry_at = None, str(error), 0.0
        self._losses += 1

    def model(self) -> ModelSource:
        """The model; if there is none, it is loaded in a thread, at most every `PAUSE`.

        Raises:
            ModelError: there is no model yet.
        """
        if self._model is not None:
            return self._model
        if time.monotonic() >= self._retry_at and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self.load, name="model", daemon=True)
            self._thread.start()
        raise ModelError(self._problem)

    def notes(self) -> list[str]:
        """Notes for the user, shown at the end."""
        lost = [f"The server of the model was lost {self._losses} times."] if self._losses else []
        return lost + ([] if self._model is None else self._model.notes())

    def status(self) -> Record:
        """A record of `model`, its title or null, and `problem`, why there is none."""
        try:
            model = self.model()
        except ModelError as error:
            return {"model": None, "problem": str(error)}
        model.update()
        return {"model": model.title, "problem": ""}


class ConnectionModel:
    """The shared model for one connection, whose `update` reports each change once to every connection."""

    def __init__(self, shared: SharedModel) -> None:
        """Start with the present model.

        Raises:
            ModelError: there is no model.
        """
        model = shared.model()
        self._shared, self.predictor, self.title = shared, model.predictor, model.title

    def update(self) -> bool:
        """Whether the model has changed since the last call.

        Raises:
            ModelError: the model was discarded.
        """
        model = self._shared.model()
        model.update()
        changed = model.predictor is not self.predictor
        self.predictor, self.title = model.predictor, model.title
        return changed

    def notes(self) -> list[str]:
        """Notes of the shared model."""
        return self._shared.notes()


class Connection:
    """The state of one connection, which processes its pictures in order."""

    def __init__(self, shared: SharedModel, *, independent: bool) -> None:
        """Create the state.

        Args:
            shared: model and detector.
            independent: whether each picture is a photograph of its own, as for `Camera.process`.
        """
        self._shared, self._independent = shared, independent
        self._camera: Camera | None = None

    def answer(self, data: bytes | None) -> Record:
        """Process a picture; no message raises an error.

        Args:
            data: the message; None if it was text.

        Returns:
            `model`; `width` and `height` of the sent picture, px; `small`, the number of faces that are too small for a
            prediction; for each of the other `faces` its `track`, `box` (left, top, width, height, px), `range`,
            `probability`, `age` in years, and `set`, the ages of the 90 % prediction set in words, or null if it is one
            range. Or `error`, a sentence.
        """
        try:
            camera = self._get_camera()
            picture = photograph(_checked(data), LIMITS)
            tracks = camera.process(Frame(picture.image, time.monotonic()), self._independent)
        except ServiceError as error:
            self._shared.discard(error)
            return {"error": str(error)}
        except AgepipeError as error:
            return {"error": str(error)}
        card = camera.model.predictor.card
        return {
            "model": camera.model.title, "width": picture.width, "height": picture.height,
            "small": camera.too_small,
            "faces": [face_record(track, card, picture.scale) for track in tracks],
        }  # fmt: skip

    def _get_camera(self) -> Camera:
        if self._camera is None:
            self._camera = Camera(ConnectionModel(self._shared), self._shared.detector)
        return self._camera


def _checked(data: bytes | None) -> bytes:
    if data is None:
        raise DataError("Text was sent, but a picture (JPEG, PNG, WebP or BMP) as bytes is needed.")
    if len(data) > MAX_PICTURE:
        raise DataError(
            f"The picture has {len(data) / 2**20:.1f} MB, at most {MAX_PICTURE // 2**20} MB are taken; make it smaller."
        )
    return data


def face_record(track: Track, card: Card, scale: float) -> Record:
    """The record of a face; `scale` is the number of px of the sent picture for each px of the processed one."""
    ends = track.ends
    return {
        "track": track.number, "box": [round(float(value) * scale, 1) for value in track.face.box],
        "range": card.ranges.words[track.label], "probability": round(track.probability, 4),
        "age": round(track.age(card.ranges), 1),
        "set": card.ranges.span_words(*ends) if ends and ends[0] < ends[1] else None,
    }  # fmt: skip
