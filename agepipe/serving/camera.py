"""The camera loop: detect, align, predict, track and draw the faces of each frame."""

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
from agepipe.serving.sinks import AnnotatedFrame, Sink
from agepipe.serving.sources import Frame, Source
from agepipe.serving.tracker import Track, Tracker

DETECTION_SIDE = 320
"""Longest side, px, at which faces are detected: takes a quarter of the time of 640 px, and detects as many faces of
100 px and more."""
SMOOTHING = 0.1
"""Weight of the newest frame in the moving average of the frame rate."""


class AgePredictor(Protocol):
    """Predicts chips: a `Predictor`, or an `agepipe.serving.endpoint.Endpoint`."""

    card: Card

    def predict(self, images: NDArray[np.uint8]) -> Prediction:
        """Predict chips, uint8 RGB `(n, size, size, 3)` at the card's size."""
        ...


class ModelSource(Protocol):
    """The model that a camera uses: a `FixedModel`, a `DeployedModel` or an `Endpoint`."""

    title: str
    """Name of the model, as users see it."""

    @property
    def predictor(self) -> AgePredictor:
        """The present model."""
        ...

    def update(self) -> bool:
        """Switch to a newly deployed model if there is one; called between two frames.

        Returns:
            Whether `predictor` is another model now.
        """
        ...

    def notes(self) -> list[str]:
        """Notes for the user, shown at the end."""
        ...


@dataclass
class Summary:
    """Counts and notes of a camera session."""

    frames: int = 0
    faces: int = 0
    """Faces with a prediction, summed over frames."""
    too_small: int = 0
    """Faces that are too small for a prediction, summed over frames."""
    min_sides: set[int] = field(default_factory=set)
    """Least sides of a face in the frames with such faces, px of the original; larger if a picture was scaled down."""
    blank: int = 0
    """Frames of a single colour."""
    tracks: set[int] = field(default_factory=set)
    """Numbers of the tracks."""
    seconds: float = 0.0
    models: list[str] = field(default_factory=list)
    """Titles of the models that were used, in order."""
    detector: str = ""
    """Title of the face detector."""
    notes: list[str] = field(default_factory=list)
    """Notes for the user."""
    last: Image | None = None
    """The last annotated frame, uint8 RGB."""
    incomplete: bool = False
    """Whether a part of the source could not be read."""
    stopped: bool = False
    """Whether Ctrl-C or a key ended the session."""

    @property
    def rate(self) -> float:
        """Mean frame rate, frames/s."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class Camera:
    """Detector, model and tracker of a camera, which process one frame at a time."""

    def __init__(self, model: ModelSource, detector: FaceDetector) -> None:
        self.model, self.detector, self._tracker = model, detector, Tracker()
        self.too_small = 0
        """Faces in the last frame that are too small for a prediction."""

    def process(self, frame: Frame, independent: bool = False) -> list[Track]:
        """Detect the faces of a frame, predict their ages, and update the tracks.

        Args:
            frame: the frame.
            independent: whether it is a photograph of its own: it starts new tracks, and is searched at all scales and
                rotations.

        Returns:
            The tracks of the faces in this frame, largest face first.
        """
        if self.model.update() or independent:
            self._tracker.reset()
        detected = self._detect(frame, independent)
        faces = [face for face in detected if face.large_enough]
        self.too_small = len(detected) - len(faces)
        rule = self.model.predictor.card.rule
        return self._tracker.update(faces, self._predict(frame.image, faces), frame.seconds, rule)

    def _detect(self, frame: Frame, independent: bool) -> list[Face]:
        if not independent and frame.blank:
            return []
        return self.detector.search(frame.image) if independent else self.detector.find(frame.image, DETECTION_SIDE)

    def _predict(self, image: Image, faces: Sequence[Face]) -> Prediction:
        predictor = self.model.predictor
        size = predictor.card.size
        chips = [fit(align(image, face.landmarks), size) for face in faces]
        return predictor.predict(np.stack(chips) if chips else np.empty((0, size, size, 3), dtype=np.uint8))


def run(
    source: Source,
    camera: Camera,
    sinks: Sequence[Sink],
    *,
    max_frames: int = 0,
    stop: Callable[[], bool] = lambda: False,
    show_help: Callable[[], bool] = lambda: False,
    progress: Progress = silent,
    summary: Summary | None = None,
) -> Summary:
    """Process frames until the source ends, the user stops it, or Ctrl-C; the sinks are closed in any case.

    Args:
        source: the frames.
        camera: processes each frame.
        sinks: receive each processed frame.
        max_frames: number of frames after which to stop; 0 for no limit.
        stop: called after each frame; whether the user wants to stop.
        show_help: whether to draw the help for the keys.
        progress: called after each frame.
        summary: filled and returned, so that the caller has it even if an exception ends the session.

    Raises:
        SourceError: the source had no frame.
    """
    done, start, rate = summary or Summary(), time.monotonic(), FrameRate()
    done.detector = camera.detector.title
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        try:
            for frame in source.frames():
                _process(frame, source, camera, sinks, done, f"{rate.tick():.0f} frames/s", show_help())
                progress(done.frames, _total(source, max_frames) or done.frames + 1, f"{len(done.tracks)} faces")
                done.seconds = time.monotonic() - start
                if stop() or done.frames == max_frames:
                    done.stopped = stop()
                    break
        except KeyboardInterrupt:
            done.stopped = True
        finally:
            done.incomplete = source.incomplete()
            done.notes += [*source.notes(), *camera.model.notes(), *_without_prediction(done)]
    if not done.frames and not done.stopped:
        raise SourceError(f"--source: it has no frame. {' '.join(done.notes)}".strip())
    return done


def _without_prediction(done: Summary) -> list[str]:
    """Notes on faces and frames without a prediction."""
    notes = []
    if done.too_small:
        sides = " or ".join(map(str, sorted(done.min_sides)))
        notes.append(f"{done.too_small} faces were smaller than {sides} px, too small for a prediction.")
    if done.blank:
        notes.append(
            f"{done.blank} of {done.frames} frames are unreadable: all their pixels are equal, as after a "
            "decoding error or with a covered lens."
        )
    return notes


def _total(source: Source, max_frames: int) -> int:
    """Expected number of frames, 0 if unknown."""
    return min((count for count in (source.total, max_frames) if count), default=0)


def _process(
    frame: Frame, source: Source, camera: Camera, sinks: Sequence[Sink], done: Summary, rate: str, show_help: bool
) -> None:
    blank = not source.independent and frame.blank  # before the frame is drawn on
    tracks = camera.process(frame, source.independent)
    model, ranges = camera.model.title, camera.model.predictor.card.ranges
    drawn = draw(frame.image, tracks, ranges, f"{model}   {camera.detector.title}   {rate}", show_help=show_help)
    for sink in sinks:
        sink.write(AnnotatedFrame(frame, drawn, tracks, ranges, model))
    done.frames, done.faces, done.last = done.frames + 1, done.faces + len(tracks), drawn
    done.too_small, done.blank = done.too_small + camera.too_small, done.blank + blank
    if camera.too_small:
        done.min_sides.add(round(MIN_FACE * frame.scale))
    done.tracks.update(track.number for track in tracks)
    if model not in done.models:
        done.models.append(model)


class FrameRate:
    """Moving average of the frame rate."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval = 0.0

    def tick(self) -> float:
        """Count a frame and return the frame rate, frames/s; 0 at the first frame."""
        now = time.monotonic()
        if self._last is not None:
            interval = now - self._last
            first = not self._interval
            self._interval = interval if first else (1 - SMOOTHING) * self._interval + SMOOTHING * interval
        self._last = now
        return 1 / self._interval if self._interval else 0.0


def one_thread() -> None:
    """Limit OpenCV to one thread; on a busy machine more threads make it slower."""
    cv2.setNumThreads(1)
