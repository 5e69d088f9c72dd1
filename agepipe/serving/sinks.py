"""Where a camera's results go: an annotated video or picture, and a line of JSON for each face of each frame.

A file is written under a temporary name and renamed when it is closed, which Ctrl-C does too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from agepipe.core.artifacts import SHORT
from agepipe.core.errors import OutputError, SourceError
from agepipe.core.system_errors import of_system
from agepipe.model.ages import AgeRanges
from agepipe.model.imaging import Image
from agepipe.serving.outputs import followed, saved
from agepipe.serving.sources import Frame
from agepipe.serving.tracker import Track

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
"""Kinds of video that can be written, and how; OpenCV's wheel writes these everywhere."""
LEAST = 64
"""Least width and height of a video, px: its coders take no frame of a few pixels."""
STILLS = (".jpg", ".jpeg", ".png")


class Seen(NamedTuple):
    """A frame and what was found in it."""

    frame: Frame
    drawn: Image
    """Annotated, uint8 RGB; to be copied by who keeps it."""
    tracks: Sequence[Track]
    ranges: AgeRanges
    model: str
    """Title of the model that answered."""


class Sink(Protocol):
    """Takes what was found in a frame."""

    def take(self, seen: Seen) -> None:
        """Keep it."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def _draft(path: Path) -> Path:
    path = followed(path)
    return path.with_name(f".{path.stem[:SHORT]}.partial{path.suffix}")


def _named(option: str, path: Path) -> None:
    """Give a finished draft its name.

    Raises:
        OutputError: it keeps that of a draft; says which.
    """
    try:
        _draft(path).replace(followed(path))
    except OSError as error:
        raise OutputError(f"{option}: {of_system(error)} What was written is in {_draft(path)}.") from error


def recorder(path: Path, rate: float) -> Sink:
    """What writes the annotated frames to this file: a video, or the last frame as a picture."""
    return Still(path) if path.suffix.lower() in STILLS else Recorder(path, rate)


class Recorder:
    """An annotated video, as large as its first frame; frames of another shape are fitted into it.

    Its rate is constant, so a frame is repeated until the next one's time, and left out where the next has the same.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._waiting: Image | None = None
        self._written = 0

    def take(self, seen: Seen) -> None:
        """Write the last frame up to the time of this one, and keep this one.

        Raises:
            SourceError: the video cannot be written.
        """
        if self._writer is None:
            self._size = (max(LEAST, seen.drawn.shape[1]), max(LEAST, seen.drawn.shape[0]))
            self._writer = self._opened()
        due = round(seen.frame.seconds * self._rate)
        if self._waiting is not None:
            self._write(self._writer, self._waiting, due)
        self._waiting = cv2.cvtColor(_fitted(seen.drawn, self._size), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)

    def _write(self, writer: cv2.VideoWriter, frame: Image, end: int) -> None:
        """Write a frame until so many are written."""
        for _ in range(self._written, end):
            writer.write(frame)
        self._written = max(self._written, end)

    def _opened(self) -> cv2.VideoWriter:
        code = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(_draft(self._path)), code, self._rate, self._size)
        if not writer.isOpened():
            raise SourceError(f"--output: {self._path} cannot be written as a video; name another folder or kind.")
        return writer

    def close(self) -> None:
        """Finish the video and give it its name; where no frame came there is none."""
        if self._writer is not None and self._waiting is not None:
            self._write(self._writer, self._waiting, self._written + 1)
            self._writer.release()
            _named("--output", self._path)


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    """The image itself, or scaled into a black frame of another shape, `size` being width and height."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, min(size[0], round(width * scale))), max(1, min(size[1], round(height * scale))))
    whole = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    whole[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return whole


class Still:
    """The last annotated frame as a picture."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Image | None = None

    def take(self, seen: Seen) -> None:
        """Keep the frame."""
        self._last = seen.drawn.copy()

    def close(self) -> None:
        """Write it."""
        if self._last is not None:
            write_picture(self._path, self._last)


def write_picture(path: Path, image: Image) -> Path:
    """Write uint8 RGB as its name says, whole or not at all.

    Raises:
        SourceError: OpenCV cannot write it.
        OutputError: it had to be written elsewhere; says where.
    """
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise SourceError(f"--output: {path} cannot be written as a picture; name a .png.")
    return saved(path, lambda draft: draft.write_bytes(data.tobytes()))


class Events:
    """A line of JSON for each face of each frame.

    It has frame, seconds, track, box (left, top, width and height in pixels of the original picture), range,
    probability, age, low and high (first and last year of the 90 % set; high is null for an open range, both where
    nothing was calibrated), model, and of a picture its path.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._path, self._number = path, 0
        self._file = _draft(path).open("w", encoding="utf-8")

    def take(self, seen: Seen) -> None:
        """Write the faces of a frame."""
        for track in seen.tracks:
            low, high = (None, None) if track.ends is None else seen.ranges.span(*track.ends)
            line = {
                "frame": self._number, "seconds": round(seen.frame.seconds, 3), "track": track.number,
                "box": [round(float(value) * seen.frame.scale, 1) for value in track.face.box],
                "range": seen.ranges.words[track.label],
                "probability": round(track.probability, 6), "age": round(track.age(seen.ranges), 3),
                "low": low, "high": high, "model": seen.model,
            }  # fmt: skip
            named = {"path": seen.frame.name} if seen.frame.name else {}
            self._file.write(json.dumps(line | named) + "\n")
        self._number += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            OutputError: the last lines could not be written, or the file not named; says where the others are.
        """
        try:
            self._file.close()
        except OSError as error:
            raise OutputError(f"--events: {of_system(error)} What was written is in {_draft(self._path)}.") from error
        _named("--events", self._path)
