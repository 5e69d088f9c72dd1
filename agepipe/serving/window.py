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
from agepipe.serving.sinks import AnnotatedFrame, write_picture

logger = logging.getLogger(__name__)

TITLE = "agepipe"
POLL = 30
"""Time for which a key is awaited at once during a pause, ms."""


class Keys:
    """The state that the keys control."""

    def __init__(self) -> None:
        self.quit = self.paused = self.show_help = self.snapshot = False

    def press(self, key: int) -> None:
        """Handle a key code of OpenCV, -1 for none; upper case counts as lower case, and Escape quits."""
        letter = chr(key & 0xFF).lower() if key >= 0 else ""
        self.quit = self.quit or letter in ("q", "\x1b")
        self.paused ^= letter == "p"
        self.show_help ^= letter == "h"
        self.snapshot = letter == "s"


def check_display() -> None:
    """Refuse to open a window without a display; OpenCV would abort the process.

    Raises:
        ServiceError: there is no display.
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
    except cv2.error:  # Qt raises after its last window was closed
        return True


class Window:
    """A window that shows the frames at most at the source's rate, and handles the keys."""

    def __init__(self, keys: Keys, snapshots: Path, interval: float, *, wait_for_key: bool = False) -> None:
        """Open the window.

        Args:
            keys: the state of the keys.
            snapshots: folder of the snapshots.
            interval: least time between two frames, s; 0 for a live source.
            wait_for_key: whether each frame is shown until a key is pressed.

        Raises:
            ServiceError: there is no display.
        """
        check_display()
        self._keys, self._snapshots, self._interval, self._wait_for_key = keys, snapshots, interval, wait_for_key
        self._due = time.monotonic()
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.setWindowTitle(TITLE, f"{TITLE}: {KEYS}")

    def write(self, result: AnnotatedFrame) -> None:
        """Show a frame until the next one is due, or until a key ends the pause."""
        cv2.imshow(TITLE, cv2.cvtColor(result.drawn, cv2.COLOR_RGB2BGR))
        wait = max(1, round((self._due - time.monotonic()) * 1000)) if self._interval else 1
        self._due = max(self._due, time.monotonic()) + self._interval
        key = cv2.waitKey(wait)
        self._pressed(key, result.drawn)
        while not self._keys.quit and (self._keys.paused or (self._wait_for_key and key < 0)):
            key = cv2.waitKey(POLL)
            self._pressed(key, result.drawn)

    def _pressed(self, key: int, drawn: Image) -> None:
        self._keys.press(key)
        self._keys.quit |= _closed()
        if self._keys.snapshot:
            self._save(drawn)

    def _save(self, drawn: Image) -> None:
        """Save a snapshot; a failure is logged and the camera continues."""
        try:
            self._snapshots.mkdir(parents=True, exist_ok=True)
            write_picture(self._snapshots / f"snapshot-{datetime.now():%Y%m%d-%H%M%S-%f}.png", drawn)
        except (OSError, AgepipeError) as error:
            logger.warning("The snapshot was not saved in %s: %s", self._snapshots, error)

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
