"""The camera's window and its keys: q quit, s snapshot, p pause, h help."""

import logging
import os
import sys
import time
from datetime import datetime
from pathlib import Path

import cv2

from agepipe.core.errors import AgepipeError, ServiceError
from agepipe.model.imaging import Image
from agepipe.serving.overlay import KEYS
from agepipe.serving.sinks import Seen, write_picture

logger = logging.getLogger(__name__)

TITLE = "agepipe"
POLL = 30
"""How long a key is waited for at a time, ms, while nothing moves."""


class Keys:
    """What the keys have asked for."""

    def __init__(self) -> None:
        self.quit = self.paused = self.helped = self.snapshot = False

    def press(self, key: int) -> None:
        """Act on a key as OpenCV gives it; -1 is none. Upper case is taken as well, Escape quits."""
        letter = chr(key & 0xFF).lower() if key >= 0 else ""
        self.quit = self.quit or letter in ("q", "\x1b")
        self.paused ^= letter == "p"
        self.helped ^= letter == "h"
        self.snapshot = letter == "s"


def check_display() -> None:
    """Refuse to open a window where there is no screen: OpenCV's window system would end the process.

    Raises:
        ServiceError: says what to do instead.
    """
    graphical = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not graphical:
        raise ServiceError(
            "camera: there is no display to open a window on (DISPLAY is not set); add --headless with --output "
            "annotated.mp4 or --events events.jsonl."
        )


def _closed() -> bool:
    """Whether the user closed the window."""
    try:
        return bool(cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1)
    except cv2.error:  # Qt's whole interface goes with its last window
        return True


class Window:
    """Shows each frame, no faster than the source's rate, and obeys the keys."""

    def __init__(self, keys: Keys, snapshots: Path, pace: float, *, still: bool = False) -> None:
        """Open it.

        Args:
            keys: what they ask for.
            snapshots: folder in which snapshots are kept.
            pace: least seconds between two frames; 0 where the source has a rate of its own.
            still: whether each frame stays until a key is pressed.
        """
        check_display()
        self._keys, self._snapshots, self._pace, self._still = keys, snapshots, pace, still
        self._due = time.monotonic()
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.setWindowTitle(TITLE, f"{TITLE}: {KEYS}")

    def take(self, seen: Seen) -> None:
        """Show a frame until the next is due, or a key ends the pause."""
        cv2.imshow(TITLE, cv2.cvtColor(seen.drawn, cv2.COLOR_RGB2BGR))
        wait = max(1, round((self._due - time.monotonic()) * 1000)) if self._pace else 1
        self._due = max(self._due, time.monotonic()) + self._pace
        key = cv2.waitKey(wait)
        self._pressed(key, seen.drawn)
        while not self._keys.quit and (self._keys.paused or (self._still and key < 0)):
            key = cv2.waitKey(POLL)
            self._pressed(key, seen.drawn)

    def _pressed(self, key: int, drawn: Image) -> None:
        self._keys.press(key)
        self._keys.quit |= _closed()
        if self._keys.snapshot:
            self._keep(drawn)

    def _keep(self, drawn: Image) -> None:
        """Keep a snapshot; where that fails the camera goes on."""
        try:
            self._snapshots.mkdir(parents=True, exist_ok=True)
            write_picture(self._snapshots / f"snapshot-{datetime.now():%Y%m%d-%H%M%S-%f}.png", drawn)
        except (OSError, AgepipeError) as error:
            logger.warning("The snapshot was not kept in %s: %s", self._snapshots, error)

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()
