"""Sources of frames: a webcam or stream, a video, a folder or archive of pictures, or one picture.

A live source is read by a thread, which keeps only the newest frame; frames that were not processed in time are dropped
and counted. Videos and pictures lose no frame.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from agepipe.core.errors import SourceError
from agepipe.data.archives import is_archive
from agepipe.data.filenames import FOREIGN
from agepipe.model.imaging import MAX_PIXELS, SUFFIXES, Image
from agepipe.serving import pictures
from agepipe.serving.clock import Clock
from agepipe.serving.pictures import Picture

log = logging.getLogger(__name__)

RATE = 25.0
"""Frame rate if a source gives none, frames/s."""
MAX_RATE = 240.0
"""Largest plausible frame rate of a file, frames/s; larger values are usually the unit of its timestamps."""
MAX_OUTPUT_RATE = 60.0
"""Largest frame rate of the output for a stream, or for a video with a variable frame rate, frames/s."""
PROBED = 30
"""Frames at the start of a video from whose timestamps its frame rate is measured."""
MIN_LENGTH = 0.98
"""Share of the announced length below which a video counts as truncated."""
TRIES = 5
"""Number of attempts to reopen a live source before it counts as ended."""
PAUSE = 1.0
"""Time between two attempts to reopen a source, and longest wait for a frame before Ctrl-C is checked, s."""
STALL = 5.0
"""Timeout of a stream, s; FFmpeg's default is 30 s."""
STILLS = frozenset(FOREIGN) - {".gif"}
"""Suffixes of pictures in formats that are refused by name; a GIF is read as a video."""


class Frame(NamedTuple):
    """A frame of a source."""

    image: Image
    """Uint8 RGB `(height, width, 3)`."""
    seconds: float
    """Time since the start, s."""
    name: str = ""
    """Path of a picture; empty for other sources."""
    scale: float = 1.0
    """Pixels of the original for each pixel of `image`, along a side."""

    @property
    def blank(self) -> bool:
        """Whether all pixels are equal, as after a decoding error; in a camera's frame noise makes them differ."""
        first = self.image[0, 0]
        return bool((self.image[::16] == first).all() and (self.image == first).all())


class Source(Protocol):
    """A source of frames."""

    rate: float
    """Frame rate, frames/s."""
    total: int
    """Number of frames; 0 if unknown."""
    live: bool
    """Whether frames that are not processed in time are dropped."""
    independent: bool
    """Whether each frame is a photograph of its own."""

    def frames(self) -> Iterator[Frame]:
        """Iterate once over the frames; the source is closed at the end."""
        ...

    def notes(self) -> list[str]:
        """Notes for the user, shown at the end."""
        ...

    def incomplete(self) -> bool:
        """Whether a part of the source could not be read."""
        ...


def open_source(text: str) -> Source:
    """Open a source by the number of a webcam, a URL or a path.

    Raises:
        SourceError: the source does not exist, cannot be opened, or has too large frames.
    """
    if text.isdecimal() or "://" in text:
        return LiveSource(text)
    path = Path(text).expanduser()
    if not path.exists():
        raise SourceError(
            f"--source: {text} does not exist; name a webcam (0), a video, a folder, a picture, or a stream (rtsp://…)."
        )
    if path.is_dir() or path.suffix.lower() in (*SUFFIXES, *STILLS) or is_archive(path.name):
        return Pictures(path)
    return Video(path)


def _capture(text: str) -> cv2.VideoCapture:
    if text.isdecimal():
        return cv2.VideoCapture(int(text))
    limit = round(STALL * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(text, cv2.CAP_FFMPEG, limits)


def _check_size(text: object, capture: cv2.VideoCapture) -> None:
    """Refuse frames of more than `MAX_PIXELS` before the first one is decoded; the source is then closed.

    Raises:
        SourceError: names the size.
    """
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        capture.release()
        raise SourceError(
            f"--source: {text} has frames of {width}×{height} px, at most {MAX_PIXELS / 1e6:.0f} million pixels are "
            "allowed; make it smaller, or name another."
        )


def _rgb(frame: np.ndarray) -> Image:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)


class Video:
    """All frames of a video file, at the times of their timestamps."""

    live = independent = False

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            SourceError: OpenCV cannot read it as a video, or its frames are too large.
        """
        self._path, self._read, self._capture = path, 0, cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(
                f"--source: {path} is no video that can be read: it is damaged, has only sound, or has a codec that "
                "OpenCV lacks; name another video, or convert it to H.264 in an MP4."
            )
        _check_size(path, self._capture)
        nominal, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        usable = 0 < nominal <= MAX_RATE
        self._nominal = nominal if usable else RATE
        self.total = max(0, int(count)) if usable else 0
        self._length = count / nominal if usable else 0.0
        self.rate = _rate(path, nominal if usable else 0.0)
        self._reached, self._unread, self._ended = 0.0, 0, False

    def frames(self) -> Iterator[Frame]:
        """All frames that can be decoded."""
        clock = Clock(self.rate)
        try:
            while self._capture.grab():
                done, image = self._capture.retrieve()
                stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                seconds = clock.at(stamp)
                # the announced length of some files counts from 0, even if their first timestamp is not 0
                self._reached = max(seconds, stamp, self._capture.get(cv2.CAP_PROP_PTS) / self._nominal)
                if done:
                    self._read += 1
                    yield Frame(_rgb(image), seconds)
                else:
                    self._unread += 1
            self._ended = True
        finally:
            self._capture.release()

    def notes(self) -> list[str]:
        """Whether frames could not be decoded, and whether the video is truncated."""
        notes = [f"{self._unread} frames of {self._path} could not be decoded."] if self._unread else []
        if self._truncated():
            notes.append(f"{self._path} announces {self.total} frames, but only {self._read} were read.")
        return notes

    def incomplete(self) -> bool:
        """Whether frames could not be decoded, or the video is truncated."""
        return self._unread > 0 or self._truncated()

    def _truncated(self) -> bool:
        # some files announce a number of frames that was estimated from their length, so both must be short
        early = self._reached + 2 / self.rate < MIN_LENGTH * self._length
        return self._ended and early and self._read + self._unread < self.total


def _rate(path: Path, nominal: float) -> float:
    """Frame rate, frames/s: that of the file, or that of its first frames if it is 1.5 times higher or more."""
    capture = cv2.VideoCapture(str(path))
    stamps = [capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 for _ in range(PROBED) if capture.grab()]
    capture.release()
    gaps = np.diff([stamp for stamp in stamps if np.isfinite(stamp)])
    measured = 1 / float(np.median(gaps)) if len(gaps) and np.median(gaps) > 1 / MAX_RATE else 0.0
    if nominal and measured < 1.5 * nominal:
        return nominal
    return min(measured, MAX_OUTPUT_RATE) or RATE


class Pictures:
    """A picture, or all pictures of a folder or archive; files that cannot be used are skipped and noted."""

    rate, live, independent = 1.0, False, True

    def __init__(self, path: Path) -> None:
        self._path, self._unusable = path, list[Picture]()
        self.total = pictures.count([path])

    def frames(self) -> Iterator[Frame]:
        """All pictures that can be used, one a second."""
        number = 0
        for picture in pictures.read([self._path]):
            if picture.image is None:
                self._unusable.append(picture)
            else:
                image = np.ascontiguousarray(picture.image)
                yield Frame(image, number / self.rate, picture.path, picture.scale)
                number += 1

    def notes(self) -> list[str]:
        """The files that could not be used, with their reasons."""
        return [f"{picture.path}: {picture.reason}: {picture.detail}" for picture in self._unusable]

    def incomplete(self) -> bool:
        """Whether a file or folder could not be read, or an archive is damaged."""
        return any(picture.reason == pictures.UNREADABLE for picture in self._unusable)


class LiveSource:
    """A webcam or stream, of which a thread keeps the newest frame."""

    rate, total, live, independent = RATE, 0, True, False

    def __init__(self, text: str) -> None:
        """Open the webcam or stream.

        Raises:
            SourceError: it does not exist, another program uses it, or its frames are too large.
        """
        self._text, self._capture = text, _capture(text)
        if not self._capture.isOpened():
            raise SourceError(
                f"--source: the camera or stream {text} cannot be opened; check that it is plugged in and no other "
                "program uses it, or name another."
            )
        _check_size(text, self._capture)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= MAX_OUTPUT_RATE else RATE  # larger values are the unit of timestamps
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._closed = False
        self._ended = ""
        self._yielded = self._received = self._breaks = 0

    def frames(self) -> Iterator[Frame]:
        """The newest frame in each iteration."""
        thread = threading.Thread(target=self._capture_frames, name="capture", daemon=True)
        thread.start()
        try:
            while (frame := self._next()) is not None:
                self._yielded += 1
                yield frame
        finally:
            self._closed = True
            thread.join()
            self._capture.release()

    def _next(self) -> Frame | None:
        with self._changed:
            while self._newest is None and not self._ended:
                self._changed.wait(PAUSE)  # without a timeout, Ctrl-C would not be handled
            frame, self._newest = self._newest, None
            return frame

    def _capture_frames(self) -> None:
        start, failures = time.monotonic(), 0
        while not self._closed and failures <= TRIES:
            done, image = self._capture.read()
            if done:
                failures = 0
                with self._changed:
                    self._newest = Frame(_rgb(image), time.monotonic() - start)
                    self._received += 1
                    self._changed.notify()
            else:
                failures += 1
                self._reopen(failures)
        with self._changed:
            never = "gave no picture; check that no other program uses it"
            reason = "stopped and did not come back" if self._received else never
            self._ended = "" if self._closed else f"The camera or stream {self._text} {reason}."
            self._changed.notify()

    def _reopen(self, failures: int) -> None:
        if failures == 1:
            self._breaks += 1
            log.warning("The camera or stream %s broke off; it is opened again, %d times at most.", self._text, TRIES)
        self._capture.release()
        time.sleep(PAUSE)
        self._capture = _capture(self._text)
        with suppress(SourceError):  # has closed the source, so reading fails again
            _check_size(self._text, self._capture)

    def notes(self) -> list[str]:
        """The number of dropped frames, and of interruptions."""
        lost, breaks = self._received - self._yielded, self._breaks
        notes = [f"{lost} of {self._received} frames came too fast and were dropped."] if lost else []
        notes += [f"The source broke off {breaks} times."] if breaks and self._received else []
        return notes + ([self._ended] if self._ended else [])

    def incomplete(self) -> bool:
        """False: dropped frames are not errors."""
        return False
