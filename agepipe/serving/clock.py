"""The times of a video's frames, from the timestamps in the stream as far as they are plausible."""

import math

JUMP = 600.0
"""Largest plausible gap between two timestamps, s; after a larger one, time goes on by one frame."""
BACK = 1.0
"""Largest plausible decrease of a timestamp, s; after a larger one, time goes on by one frame."""


class Clock:
    """Seconds since the first frame; they never decrease, whatever the timestamps are."""

    def __init__(self, rate: float) -> None:
        """Start at the first frame.

        Args:
            rate: frame rate, frames/s, for frames without a plausible timestamp.
        """
        self._step, self._now, self._shift = 1 / rate, -1 / rate, 0.0
        self._stamp: float | None = None
        self._moved = False

    def at(self, stamp: float) -> float:
        """The time of the next frame, s, from its timestamp, s; NaN or infinity stands for none."""
        follows = self._now + self._step
        if not math.isfinite(stamp):
            self._now = follows
            return follows
        last, self._stamp = self._stamp, stamp
        if last is None or not -BACK <= stamp - last <= JUMP:
            self._shift = follows - stamp
        else:
            self._moved = self._moved or stamp != last
        # a stream without timestamps gives 0 for all frames; in others two frames may share one
        self._now = max(self._now, stamp + self._shift) if self._moved else follows
        return self._now
