"""The camera: the faces of each frame found, aligned, answered, followed and drawn, until source or user ends it."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.core.errors import SourceError
from agepipe.core.progress import Progress, silent
from agepipe.model.bundle import Card
from agepipe.model.imaging import Image, fit
from agepipe.model.predictor import Prediction
from agepipe.serving.align import align
from agepipe.serving.detect.detector import FaceDetector
from agepipe.serving.detect.face import MIN_FACE, Face
from agepipe.serving.overlay import draw
from agepipe.serving.sinks import Seen, Sink
from agepipe.serving.sources import Frame, Source
from agepipe.serving.tracker import Track, Tracker

LOOK = 320
"""Longest side, px, at which faces are looked for: a quarter of the time of 640, and as good from 100 px a face on."""
CALM = 0.1
"""Weight of the newest frame in the frame rate that is shown."""


class Answering(Protocol):
    """What answers for faces: a `Predictor`, or an `agepipe.serving.endpoint.Endpoint`."""

    card: Card

    def predict(self, images: NDArray[np.uint8]) -> Prediction:
        """What it says of pictures, uint8 RGB `(n, size, size, 3)` at the card's size."""
        ...


class Model(Protocol):
    """Which model answers now: `agepipe.serving.model_source.Fixed`, `Following` or `Served`."""

    title: str

    @property
    def predictor(self) -> Answering:
        """What answers."""
        ...

    def renewed(self) -> bool:
        """Whether another model answers from now on."""
        ...

    def notes(self) -> list[str]:
        """What a user should know afterwards."""
        ...


@dataclass
class Summary:
    """What a camera did."""

    frames: int = 0
    faces: int = 0
    """Counted in each frame anew."""
    illegible: int = 0
    """Faces too small to be answered, counted in each frame anew."""
    least: set[int] = field(default_factory=set)
    """Sides below which they were too small, px of the original: more where a frame is a picture made smaller."""
    blank: int = 0
    """Frames of one colour alone, in which nothing can be seen."""
    people: set[int] = field(default_factory=set)
    """Numbers of the tracks."""
    seconds: float = 0.0
    models: list[str] = field(default_factory=list)
    """Titles of those that answered, in order."""
    detector: str = ""
    """Title of what found the faces."""
    notes: list[str] = field(default_factory=list)
    last: Image | None = None
    """The last annotated frame, uint8 RGB."""
    incomplete: bool = False
    """Whether something that the source holds could not be read."""
    stopped: bool = False
    """Whether Ctrl-C or a key ended it."""

    @property
    def rate(self) -> float:
        """Frames a second, from the first to the last."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class Camera:
    """Eyes, model and memory; one frame at a time."""

    def __init__(self, model: Model, detector: FaceDetector) -> None:
        self.model, self.detector, self._tracker = model, detector, Tracker()
        self.illegible = 0
        """Faces in the last frame that are too small to be answered."""

    def look(self, frame: Frame, apart: bool = False) -> list[Track]:
        """The faces of a frame, as they stand after it.

        Args:
            frame: the frame.
            apart: whether it has nothing to do with the last one; then it is searched as a photograph is.
        """
        if self.model.renewed() or apart:
            self._tracker.forget()
        seen = self._found(frame, apart)
        find = [face for face in seen if face.large_enough]
        self.illegible = len(seen) - len(find)
        rule = self.model.predictor.card.rule
        return self._tracker.update(find, self._answers(frame.image, find), frame.seconds, rule)

    def _found(self, frame: Frame, apart: bool) -> list[Face]:
        if not apart and frame.blank:
            return []
        return self.detector.search(frame.image) if apart else self.detector.find(frame.image, LOOK)

    def _answers(self, image: Image, faces: Sequence[Face]) -> Prediction:
        predictor = self.model.predictor
        size = predictor.card.size
        chips = [fit(align(image, face.landmarks), size) for face in faces]
        return predictor.predict(np.stack(chips) if chips else np.empty((0, size, size, 3), dtype=np.uint8))


def run(
    source: Source,
    camera: Camera,
    sinks: Sequence[Sink],
    *,
    most: int = 0,
    ended: Callable[[], bool] = lambda: False,
    helped: Callable[[], bool] = lambda: False,
    progress: Progress = silent,
    into: Summary | None = None,
) -> Summary:
    """Treat frames until the source ends; Ctrl-C ends it as well, and every file is finished whatever happens.

    Args:
        source: the frames.
        camera: what looks at them.
        sinks: what takes them; closed at the end.
        most: frames after which it ends; 0 for no end.
        ended: asked after each frame whether the user wants to end.
        helped: whether to explain the keys.
        progress: told after each frame.
        into: what is filled and returned, for who wants it even where this is ended from outside.

    Raises:
        SourceError: not one frame came.
    """
    done, start, shown = into or Summary(), time.monotonic(), Rate()
    done.detector = camera.detector.title
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        try:
            for frame in source.frames():
                _treat(frame, source, camera, sinks, done, f"{shown.tick():.0f} frames/s", helped())
                progress(done.frames, _total(source, most) or done.frames + 1, f"{len(done.people)} faces")
                done.seconds = time.monotonic() - start
                if ended() or done.frames == most:
                    done.stopped = ended()
                    break
        except KeyboardInterrupt:
            done.stopped = True
        finally:
            done.incomplete = source.incomplete()
            done.notes += [*source.notes(), *camera.model.notes(), *_unseen(done)]
    if not done.frames and not done.stopped:
        raise SourceError(f"--source: not one frame came. {' '.join(done.notes)}".strip())
    return done


def _unseen(done: Summary) -> list[str]:
    """What could not be answered, and why."""
    told = []
    if done.illegible:
        least = " or ".join(map(str, sorted(done.least)))
        told.append(f"{done.illegible} faces were smaller than {least} px, too small to be answered.")
    if done.blank:
        told.append(
            f"{done.blank} of {done.frames} frames are unreadable: all their pixels are equal, as a decoder that "
            "failed or a covered camera gives them."
        )
    return told


def _total(source: Source, most: int) -> int:
    """Frames that will be treated, 0 where nobody knows."""
    known = [count for count in (source.total, most) if count]
    return min(known, default=0)


def _treat(
    frame: Frame, source: Source, camera: Camera, sinks: Sequence[Sink], done: Summary, rate: str, helped: bool
) -> None:
    blank = not source.apart and frame.blank  # drawing on the frame changes that
    tracks = camera.look(frame, source.apart)
    model, ranges = camera.model.title, camera.model.predictor.card.ranges
    drawn = draw(frame.image, tracks, ranges, f"{model}   {camera.detector.title}   {rate}", helped=helped)
    for sink in sinks:
        sink.take(Seen(frame, drawn, tracks, ranges, model))
    done.frames, done.faces, done.last = done.frames + 1, done.faces + len(tracks), drawn
    done.illegible, done.blank = done.illegible + camera.illegible, done.blank + blank
    if camera.illegible:
        done.least.add(round(MIN_FACE * frame.scale))
    done.people.update(track.number for track in tracks)
    if model not in done.models:
        done.models.append(model)


class Rate:
    """Frames a second, calmed."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._apart = 0.0

    def tick(self) -> float:
        """Count a frame; the rate until now, 0 at the first."""
        now = time.monotonic()
        if self._last is not None:
            apart = now - self._last
            self._apart = apart if not self._apart else (1 - CALM) * self._apart + CALM * apart
        self._last = now
        return 1 / self._apart if self._apart else 0.0


def one_thread() -> None:
    """Keep OpenCV on one thread: with more, its pieces wait for each other on a busy machine."""
    cv2.setNumThreads(1)
