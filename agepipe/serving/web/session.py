"""What the page's server does with a picture: bytes in, a record of the faces out; nothing is written anywhere.

All connections share one model and one detector, which one thread uses at a time. Each has faces of its own to follow.
"""

import threading
import time
from collections.abc import Callable, Sequence

from agepipe.core.errors import AgepipeError, DataError, ModelError, ServiceError
from agepipe.model.bundle import Card
from agepipe.model.imaging import Limits, photograph
from agepipe.serving.camera import Camera, Model
from agepipe.serving.detect.detector import FaceDetector
from agepipe.serving.sources import Frame
from agepipe.serving.tracker import Track

LIMITS = Limits(max_pixels=8_500_000)
"""A frame of 3840×2160 is taken as it is; a larger one would keep all others waiting, and is made smaller."""
LARGEST = 4 * 2**20
"""Bytes of a picture; the page sends about 40 kB."""
PAUSE = 5.0
"""Seconds until a model that could not be had is asked for again."""
Record = dict[str, object]
"""What is sent, as JSON values."""


class Shared:
    """The model, from when there is one, and the detector; for one thread at a time."""

    def __init__(self, choose: Callable[[], Model], detector: FaceDetector, told: Sequence[str] = ()) -> None:
        """Keep how the model is chosen, and what a user should know of the detector."""
        self.detector, self.told = detector, told
        self._choose, self._problem, self._again = choose, "The model is being loaded.", 0.0
        self._model: Model | None = None
        self._thread: threading.Thread | None = None
        self._losses = 0

    def load(self) -> None:
        """Choose the model; where there is none yet, `model` says why."""
        try:
            self._model = self._choose()
        except AgepipeError as error:
            self._problem = str(error)
        self._again = time.monotonic() + PAUSE

    def lose(self, error: ServiceError) -> None:
        """Give up the model, whose server is gone or has another one now; it is asked for again by the next picture."""
        self._model, self._problem, self._again = None, str(error), 0.0
        self._losses += 1

    def model(self) -> Model:
        """The model; where there is none, it is looked for again after a pause, and nobody waits for that.

        Raises:
            ModelError: there is none yet, or it cannot be used; says what to do.
        """
        if self._model is not None:
            return self._model
        if time.monotonic() >= self._again and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self.load, name="model", daemon=True)
            self._thread.start()
        raise ModelError(self._problem)

    def notes(self) -> list[str]:
        """What a user should know afterwards."""
        lost = [f"The server of the model was lost {self._losses} times."] if self._losses else []
        return lost + ([] if self._model is None else self._model.notes())

    def status(self) -> Record:
        """`model` is its title, or null with the `problem`."""
        try:
            model = self.model()
        except ModelError as error:
            return {"model": None, "problem": str(error)}
        model.renewed()
        return {"model": model.title, "problem": ""}


class View:
    """The shared model as one connection sees it: whoever noticed a change first, each is told of it once."""

    def __init__(self, shared: Shared) -> None:
        """Begin with the model as it is.

        Raises:
            ModelError: there is none.
        """
        model = shared.model()
        self._shared, self.predictor, self.title = shared, model.predictor, model.title

    def renewed(self) -> bool:
        """Whether another model answers from now on.

        Raises:
            ModelError: there is none any more.
        """
        model = self._shared.model()
        model.renewed()
        changed = model.predictor is not self.predictor
        self.predictor, self.title = model.predictor, model.title
        return changed

    def notes(self) -> list[str]:
        """What a user should know afterwards."""
        return self._shared.notes()


class Live:
    """The pictures of one connection, in their order."""

    def __init__(self, shared: Shared, *, apart: bool) -> None:
        """Look at pictures.

        Args:
            shared: model and detector.
            apart: whether a picture has nothing to do with the last; then it is searched as a photograph is.
        """
        self._shared, self._apart = shared, apart
        self._camera: Camera | None = None

    def look(self, data: bytes | None) -> Record:
        """What a picture shows, or `error`, a sentence; nothing that is sent makes it fail.

        Args:
            data: the message; None where it was text.

        Returns:
            `model`; `width` and `height` of the picture as it was sent, px; `small`, how many faces are too small to be
            answered; for each of the other `faces` its `track`, `box` (left, top, width, height, in the same px),
            `range`, `probability`, `age` in years, and where the model is unsure `set`, the ages of the 90 % set in
            words.
        """
        try:
            camera = self._looking()
            taken = photograph(_taken(data), LIMITS)
            tracks = camera.look(Frame(taken.image, time.monotonic()), self._apart)
        except ServiceError as error:
            self._shared.lose(error)
            return {"error": str(error)}
        except AgepipeError as error:
            return {"error": str(error)}
        card = camera.model.predictor.card
        return {
            "model": camera.model.title, "width": taken.width, "height": taken.height,
            "small": camera.illegible,
            "faces": [described(track, card, taken.scale) for track in tracks],
        }  # fmt: skip

    def _looking(self) -> Camera:
        if self._camera is None:
            self._camera = Camera(View(self._shared), self._shared.detector)
        return self._camera


def _taken(data: bytes | None) -> bytes:
    if data is None:
        raise DataError("Text was sent, but a picture (JPEG, PNG, WebP or BMP) as bytes is needed.")
    if len(data) > LARGEST:
        raise DataError(
            f"The picture has {len(data) / 2**20:.1f} MB, at most {LARGEST // 2**20} MB are taken; make it smaller."
        )
    return data


def described(track: Track, card: Card, scale: float) -> Record:
    """A face as it is sent; its box is in pixels of the picture that came, `scale` for each in which it was found."""
    found = track.ends
    return {
        "track": track.number, "box": [round(float(value) * scale, 1) for value in track.face.box],
        "range": card.ranges.words[track.label], "probability": round(track.probability, 4),
        "age": round(track.age(card.ranges), 1),
        "set": card.ranges.span_words(*found) if found and found[0] < found[1] else None,
    }  # fmt: skip
