"""Faces followed from frame to frame, so that a still face does not flicker between ranges.

Each track averages what the network says over some tenths of a second. A new face starts from its own first answer,
a lost one is forgotten. The range that is shown changes when another is ahead by a margin, not by a hair: as the
likeliest when another is likelier by the margin, as the median when the ages to one side of it outweigh all others by
the margin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agepipe.model.ages import AgeRanges
from agepipe.model.decoding import Decoding, Rule, decide, sets
from agepipe.model.predictor import Prediction
from agepipe.serving.detect.face import Face

MEMORY = 0.5
"""Time constant of the average, s: what was said so long ago still counts for a third."""
MARGIN = 0.05
"""Probability by which another range, or one side, must be ahead before the shown range changes."""
PATIENCE = 0.7
"""How long a face may be out of sight, s, before it is forgotten."""
FRAMES = 1.5
"""The same in frames, where those come more slowly: as a multiple of the time between the last two."""
OVERLAP = 0.3
"""Intersection over union from which on two boxes may be of one face."""


@dataclass
class Track:
    """One face over time."""

    number: int
    """Counted from 1, never used again."""
    face: Face
    """Where it was seen last."""
    probabilities: NDArray[np.float64]
    """Averaged, `(classes,)`."""
    years: float
    """Averaged age."""
    seen: float
    """When it was seen last, s."""
    rule: Rule = Rule()
    """How the model's probabilities become an answer."""
    frames: int = 1
    label: int = field(init=False)
    """The range that is shown, a class."""

    def __post_init__(self) -> None:
        self.label = _answered(self.probabilities, self.rule.decoding)

    @property
    def probability(self) -> float:
        """Of the range that is shown."""
        return float(self.probabilities[self.label])

    @property
    def ends(self) -> tuple[int, int] | None:
        """First and last class of the 90 % set, the shown range in it; None where nothing was calibrated."""
        decoding, threshold = self.rule
        if threshold is None:
            return None
        (first,), (last,) = sets(self.probabilities[None], threshold, decoding)
        return min(int(first), self.label), max(int(last), self.label)

    def age(self, ranges: AgeRanges) -> float:
        """The averaged age in years, moved into the range that is shown, which lags behind it."""
        return float(ranges.within(np.array([self.label]), np.array([self.years]))[0])

    def see(self, face: Face, probabilities: NDArray[np.float64], years: float, now: float) -> None:
        """Add what the network says of the face in another frame."""
        share = max(1 - math.exp(-max(now - self.seen, 0.0) / MEMORY), 1 / (self.frames + 1))
        self.probabilities = (1 - share) * self.probabilities + share * probabilities
        self.years = (1 - share) * self.years + share * years
        self.face, self.seen, self.frames = face, now, self.frames + 1
        if _lead(self.probabilities, self.label, self.rule.decoding) > MARGIN:
            self.label = _answered(self.probabilities, self.rule.decoding)


def _answered(probabilities: NDArray[np.float64], decoding: Decoding) -> int:
    return int(decide(probabilities[None], decoding)[0])


def _lead(probabilities: NDArray[np.float64], shown: int, decoding: Decoding) -> float:
    """By how much probability the shown range is behind; 0 or less where it is still the answer."""
    if decoding == "likeliest":
        return float(probabilities.max() - probabilities[shown])
    younger, older = float(probabilities[:shown].sum()), float(probabilities[shown + 1 :].sum())
    return 2 * max(younger, older) - float(probabilities.sum())


class Tracker:
    """All faces that are in sight or were a moment ago."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._given = 0
        self._last: float | None = None
        self._apart = 0.0

    def forget(self) -> None:
        """Start anew: the next picture has nothing to do with the last, or another model answers."""
        self._tracks = []

    def update(self, faces: Sequence[Face], found: Prediction, now: float, rule: Rule = Rule()) -> list[Track]:
        """The tracks of the faces of a frame, in their order.

        Args:
            faces: of the frame.
            found: what the network says of each.
            now: time of the frame, s; never less than before.
            rule: how the model's probabilities become an answer.
        """
        # of a source that gives a frame a second, the last frame is a moment ago
        patience = max(PATIENCE, FRAMES * self._apart)
        self._tracks = [track for track in self._tracks if now - track.seen <= patience]
        self._apart = 0.0 if self._last is None else now - self._last
        self._last = now
        known = _matched(self._tracks, faces)
        shown = []
        for at, face in enumerate(faces):
            probabilities, years = found.probabilities[at].astype(np.float64), float(found.years[at])
            if at in known:
                known[at].see(face, probabilities, years, now)
            else:
                self._given += 1
                known[at] = Track(self._given, face, probabilities, years, now, rule)
                self._tracks.append(known[at])
            shown.append(known[at])
        return shown


def _matched(tracks: Sequence[Track], faces: Sequence[Face]) -> dict[int, Track]:
    """The track of each face that has one: pairs of boxes with the largest overlap first, each taken once."""
    pairs = [
        (overlap(track.face.box, face.box), -row, at)
        for row, track in enumerate(tracks)
        for at, face in enumerate(faces)
    ]
    found: dict[int, Track] = {}
    used: set[int] = set()
    for share, row, at in sorted(pairs, reverse=True):
        if share >= OVERLAP and at not in found and row not in used:
            used.add(row)
            found[at] = tracks[-row]
    return found


def overlap(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes (left, top, width, height); 0 for boxes without area."""
    start = np.maximum(one[:2], other[:2])
    end = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    common = float(np.prod(np.maximum(end - start, 0)))
    union = float(one[2] * one[3] + other[2] * other[3]) - common
    return common / union if union > 0 else 0.0
