"""Where a camera's frames come from: a webcam or stream, a video, a folder or archive of pictures, or one picture.

From a live source the newest frame wins: a thread reads on while the last frame is treated, and what nobody had time
for is counted. Of a video and of pictures every frame is treated.
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
"""Frames a second where a source does not say."""
FASTEST = 240.0
"""Frames a second above which what a file says is no rate but the unit of its clock."""
MOST_WRITTEN = 60.0
"""Most frames a second that are taken for the rate of a stream, or of a video whose frames do not come at one rate."""
PROBED = 30
"""Frames at the beginning of a video out of whose timestamps its rate is taken where it does not say it."""
SHORT = 0.98
"""Share of its announced length below which a video has ended early."""
TRIES = 5
"""How often a live source that stopped is opened again before it is given up."""
PAUSE = 1.0
"""Seconds between two tries, and for which the reader of a live source waits for a frame at a time."""
STALL = 5.0
"""Seconds for which a stream may be silent before it counts as broken off; FFmpeg itself would wait for 30."""
STILLS = frozenset(FOREIGN) - {".gif"}
"""How the names of pictures end that cannot be read, and whose kind is then named; a GIF is read as a video."""


class Frame(NamedTuple):
    """One frame."""

    image: Image
    """Uint8 RGB `(height, width, 3)`."""
    seconds: float
    """When it was taken, s from the start."""
    name: str = ""
    """Path of a picture."""
    scale: float = 1.0
    """Pixels of the original for each pixel of `image`, along a side."""

    @property
    def blank(self) -> bool:
        """Whether all pixels are equal: no camera sees that, in the dark either, but a decoder that failed gives it."""
        first = self.image[0, 0]
        return bool((self.image[::16] == first).all() and (self.image == first).all())


class Source(Protocol):
    """Frames, and what is known of them."""

    rate: float
    """Frames a second."""
    total: int
    """Frames, 0 where nobody knows."""
    live: bool
    """Whether frames are lost that are not taken in time."""
    apart: bool
    """Whether each frame is a picture that has nothing to do with the last."""

    def frames(self) -> Iterator[Frame]:
        """The frames, once; closes the source at the end."""
        ...

    def notes(self) -> list[str]:
        """What a user should know afterwards."""
        ...

    def incomplete(self) -> bool:
        """Whether something that it holds could not be read, so that the results lack it."""
        ...


def opened(text: str) -> Source:
    """The source that a user names.

    Raises:
        SourceError: it is not there, cannot be opened, or has frames that are too large.
    """
    if text.isdecimal() or "://" in text:
        return Live(text)
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
    """Refuse frames that would take too much memory, before the first is decoded.

    Raises:
        SourceError: says how large they are.
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
    """A video file, every frame of it, at the time that its own timestamp says."""

    live = apart = False

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            SourceError: OpenCV finds no video in it, or its frames are too large.
        """
        self._path, self._read, self._capture = path, 0, cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(
                f"--source: {path} is no video that can be read: it is damaged, holds sound alone, or is coded in a "
                "way that is not known here; name another video, or convert its pictures to H.264 in an MP4."
            )
        _check_size(path, self._capture)
        nominal, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        usable = 0 < nominal <= FASTEST
        self._nominal = nominal if usable else RATE
        self.total = max(0, int(count)) if usable else 0
        self._length = count / nominal if usable else 0.0
        self.rate = _rate(path, nominal if usable else 0.0)
        self._reached, self._unread, self._ended = 0.0, 0, False

    def frames(self) -> Iterator[Frame]:
        """All frames that can be read."""
        clock = Clock(self.rate)
        try:
            while self._capture.grab():
                done, image = self._capture.retrieve()
                stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                seconds = clock.at(stamp)
                # the length of some files begins at 0, whatever their first timestamp is
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
        """Whether the video itself stopped early, and what could not be decoded."""
        told = [f"{self._unread} frames of {self._path} could not be decoded."] if self._unread else []
        if self._cut():
            told.append(f"{self._path} announces {self.total} frames, but only {self._read} were read.")
        return told

    def incomplete(self) -> bool:
        """Whether it stopped early by itself, or frames could not be decoded."""
        return self._unread > 0 or self._cut()

    def _cut(self) -> bool:
        # the count of some files is a guess out of their length, so the length has to be short too
        early = self._reached + 2 / self.rate < SHORT * self._length
        return self._ended and early and self._read + self._unread < self.total


def _rate(path: Path, nominal: float) -> float:
    """Frames a second: what the file says, or of its first frames, where those follow each other faster."""
    capture = cv2.VideoCapture(str(path))
    stamps = [capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 for _ in range(PROBED) if capture.grab()]
    capture.release()
    gaps = np.diff([stamp for stamp in stamps if np.isfinite(stamp)])
    seen = 1 / float(np.median(gaps)) if len(gaps) and np.median(gaps) > 1 / FASTEST else 0.0
    if nominal and seen < 1.5 * nominal:
        return nominal
    return min(seen, MOST_WRITTEN) or RATE


class Pictures:
    """A picture, or all in a folder or archive; what is no picture is left out and named."""

    rate, live, apart = 1.0, False, True

    def __init__(self, path: Path) -> None:
        self._path, self._bad = path, list[Picture]()
        self.total = pictures.count([path])

    def frames(self) -> Iterator[Frame]:
        """Each picture that can be used."""
        number = 0
        for picture in pictures.read([self._path]):
            if picture.image is None:
                self._bad.append(picture)
            else:
                image = np.ascontiguousarray(picture.image)
                yield Frame(image, number / self.rate, picture.path, picture.scale)
                number += 1

    def notes(self) -> list[str]:
        """What could not be used."""
        return [f"{picture.path}: {picture.reason}: {picture.detail}" for picture in self._bad]

    def incomplete(self) -> bool:
        """Whether a file or folder was not given out, or an archive is damaged."""
        return any(picture.reason == pictures.UNREADABLE for picture in self._bad)


class Live:
    """A webcam or stream: a thread keeps the newest frame."""

    rate, total, live, apart = RATE, 0, True, False

    def __init__(self, text: str) -> None:
        """Open it.

        Raises:
            SourceError: there is no such camera, it is busy, or its frames are too large.
        """
        self._text, self._capture = text, _capture(text)
        if not self._capture.isOpened():
            raise SourceError(
                f"--source: the camera or stream {text} cannot be opened; check that it is plugged in and no other "
                "program uses it, or name another."
            )
        _check_size(text, self._capture)
        said = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = said if 0 < said <= MOST_WRITTEN else RATE  # above it, mostly the unit of the stream's clock
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._closed = False
        self._ended = ""
        self._taken = self._seen = self._breaks = 0

    def frames(self) -> Iterator[Frame]:
        """The newest frame, each time that one is asked for."""
        thread = threading.Thread(target=self._watch, name="capture", daemon=True)
        thread.start()
        try:
            while (frame := self._next()) is not None:
                self._taken += 1
                yield frame
        finally:
            self._closed = True
            thread.join()
            self._capture.release()

    def _next(self) -> Frame | None:
        with self._changed:
            while self._newest is None and not self._ended:
                self._changed.wait(PAUSE)  # with a limit, so that Ctrl-C is heard
            frame, self._newest = self._newest, None
            return frame

    def _watch(self) -> None:
        start, failures = time.monotonic(), 0
        while not self._closed and failures <= TRIES:
            done, image = self._capture.read()
            if done:
                failures = 0
                with self._changed:
                    self._newest = Frame(_rgb(image), time.monotonic() - start)
                    self._seen += 1
                    self._changed.notify()
            else:
                failures += 1
                self._again(failures)
        with self._changed:
            self._ended = "" if self._closed else f"The camera or stream {self._text} {self._end()}."
            self._changed.notify()

    def _end(self) -> str:
        if self._seen:
            return "stopped and did not come back"
        return "gave no picture; check that no other program uses it"

    def _again(self, failures: int) -> None:
        if failures == 1:
            self._breaks += 1
            log.warning("The camera or stream %s broke off; it is opened again, %d times at most.", self._text, TRIES)
        self._capture.release()
        time.sleep(PAUSE)
        self._capture = _capture(self._text)
        with suppress(SourceError):  # which has released it, so that no frame comes
            _check_size(self._text, self._capture)

    def notes(self) -> list[str]:
        """How many frames nobody had time for, and how often the source broke off."""
        lost, breaks = self._seen - self._taken, self._breaks
        told = [f"{lost} of {self._seen} frames came too fast and were dropped."] if lost else []
        told += [f"The source broke off {breaks} times."] if breaks and self._seen else []
        return told + ([self._ended] if self._ended else [])

    def incomplete(self) -> bool:
        """Never: what was not taken in time is lost, and said."""
        return False
