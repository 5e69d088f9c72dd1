"""The time of a video's frames, from the stream's own timestamps as far as these can be believed."""

import math

JUMP = 600.0
"""Seconds that may lie between two frames; timestamps further apart are not believed, and begin again."""
BACK = 1.0
"""Seconds by which a timestamp may go back; one that goes back further begins again."""


class Clock:
    """Seconds since the first frame; they never go back, whatever the timestamps do."""

    def __init__(self, rate: float) -> None:
        """Begin.

        Args:
            rate: frames a second, by which frames without a usable timestamp are counted.
        """
        self._step, self._now, self._shift = 1 / rate, -1 / rate, 0.0
        self._stamp: float | None = None
        self._moved = False

    def at(self, stamp: float) -> float:
        """The time of the next frame, s, from its timestamp, s; one that is not finite counts as none."""
        follows = self._now + self._step
        if not math.isfinite(stamp):
            self._now = follows
            return follows
        last, self._stamp = self._stamp, stamp
        if last is None or not -BACK <= stamp - last <= JUMP:
            self._shift = follows - stamp
        else:
            self._moved = self._moved or stamp != last
        # timestamps that have never moved say nothing; two frames may share one
        self._now = max(self._now, stamp + self._shift) if self._moved else follows
        return self._now
