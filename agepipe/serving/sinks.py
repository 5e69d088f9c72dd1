"""The outputs of a camera: an annotated video or picture, and a JSON file with a line for each face of each frame.

A file is written under a temporary name and renamed when it is closed, also after Ctrl-C.
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
from agepipe.serving.outputs import resolve_link, save
from agepipe.serving.sources import Frame
from agepipe.serving.tracker import Track

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
"""Suffixes of videos and their codecs; OpenCV's wheels contain these on all systems."""
MIN_VIDEO_SIDE = 64
"""Least width and height of a video, px; the codecs do not accept frames of a few pixels."""
STILLS = (".jpg", ".jpeg", ".png")
"""Suffixes of pictures."""


class AnnotatedFrame(NamedTuple):
    """A processed frame."""

    frame: Frame
    drawn: Image
    """The frame with boxes and labels, uint8 RGB; copy it to keep it."""
    tracks: Sequence[Track]
    """The tracks of its faces."""
    ranges: AgeRanges
    """The age ranges of the model."""
    model: str
    """Title of the model."""


class Sink(Protocol):
    """An output of a camera."""

    def write(self, result: AnnotatedFrame) -> None:
        """Write a processed frame."""
        ...

    def close(self) -> None:
        """Close the output."""
        ...


def _draft(path: Path) -> Path:
    path = resolve_link(path)
    return path.with_name(f".{path.stem[:SHORT]}.partial{path.suffix}")


def _rename_draft(option: str, path: Path) -> None:
    """Rename a finished draft.

    Raises:
        OutputError: it cannot be renamed; names the path of the draft.
    """
    try:
        _draft(path).replace(resolve_link(path))
    except OSError as error:
        raise OutputError(f"{option}: {of_system(error)} What was written is in {_draft(path)}.") from error


def output_sink(path: Path, rate: float) -> Sink:
    """Create the output for annotated frames: a video, or a picture of the last frame, by the suffix."""
    return Still(path) if path.suffix.lower() in STILLS else Recorder(path, rate)


class Recorder:
    """An annotated video with the size of its first frame; frames of another size are scaled into it.

    Its frame rate is constant. So a frame is repeated until the time of the next one, and dropped if both have the same
    time.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._pending: Image | None = None
        self._written = 0

    def write(self, result: AnnotatedFrame) -> None:
        """Write the previous frame up to the time of this one, which is written later.

        Raises:
            SourceError: the video cannot be written.
        """
        if self._writer is None:
            self._size = (max(MIN_VIDEO_SIDE, result.drawn.shape[1]), max(MIN_VIDEO_SIDE, result.drawn.shape[0]))
            self._writer = self._open()
        due = round(result.frame.seconds * self._rate)
        if self._pending is not None:
            self._repeat(self._writer, self._pending, due)
        self._pending = cv2.cvtColor(_fitted(result.drawn, self._size), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)

    def _repeat(self, writer: cv2.VideoWriter, frame: Image, end: int) -> None:
        """Repeat a frame until the video has `end` frames."""
        for _ in range(self._written, end):
            writer.write(frame)
        self._written = max(self._written, end)

    def _open(self) -> cv2.VideoWriter:
        code = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(_draft(self._path)), code, self._rate, self._size)
        if not writer.isOpened():
            raise SourceError(f"--output: {self._path} cannot be written as a video; name another folder or kind.")
        return writer

    def close(self) -> None:
        """Finish and rename the video; without a frame there is no file.

        Raises:
            OutputError: the video cannot be renamed; names the path of the draft.
        """
        if self._writer is not None and self._pending is not None:
            self._repeat(self._writer, self._pending, self._written + 1)
            self._writer.release()
            _rename_draft("--output", self._path)


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    """Scale an image into a black frame of `size`, width and height; of that size it is returned unchanged."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, min(size[0], round(width * scale))), max(1, min(size[1], round(height * scale))))
    padded = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    padded[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return padded


class Still:
    """A picture of the last annotated frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Image | None = None

    def write(self, result: AnnotatedFrame) -> None:
        """Remember the frame."""
        self._last = result.drawn.copy()

    def close(self) -> None:
        """Write the picture."""
        if self._last is not None:
            write_picture(self._path, self._last)


def write_picture(path: Path, image: Image) -> Path:
    """Write an image, uint8 RGB, atomically, in the format of its suffix.

    Raises:
        SourceError: OpenCV cannot encode it.
        OutputError: it was written to another path, which is named.
    """
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise SourceError(f"--output: {path} cannot be written as a picture; name a .png.")
    return save(path, lambda draft: draft.write_bytes(data.tobytes()))


class Events:
    """A file with a line of JSON for each face of each frame.

    The keys are `frame`, `seconds`, `track`, `box` (left, top, width and height in px of the original picture),
    `range`, `probability`, `age`, `low` and `high` (first and last year of the 90 % prediction set; `high` is null if
    the set is open-ended, both if the model was not calibrated), `model`, and for a picture `path`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._path, self._number = path, 0
        self._file = _draft(path).open("w", encoding="utf-8")

    def write(self, result: AnnotatedFrame) -> None:
        """Write the faces of a frame."""
        for track in result.tracks:
            low, high = (None, None) if track.ends is None else result.ranges.span(*track.ends)
            line = {
                "frame": self._number, "seconds": round(result.frame.seconds, 3), "track": track.number,
                "box": [round(float(value) * result.frame.scale, 1) for value in track.face.box],
                "range": result.ranges.words[track.label],
                "probability": round(track.probability, 6), "age": round(track.age(result.ranges), 3),
                "low": low, "high": high, "model": result.model,
            }  # fmt: skip
            path = {"path": result.frame.name} if result.frame.name else {}
            self._file.write(json.dumps(line | path) + "\n")
        self._number += 1

    def close(self) -> None:
        """Close and rename the file.

        Raises:
            OutputError: the last lines could not be written, or the file not renamed; names the path of the draft.
        """
        try:
            self._file.close()
        except OSError as error:
            raise OutputError(f"--events: {of_system(error)} What was written is in {_draft(self._path)}.") from error
        _rename_draft("--events", self._path)
