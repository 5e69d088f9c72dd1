"""Track faces from frame to frame, and average their predictions, so that a still face does not flicker between ranges.

A track averages the predictions of some tenths of a second. It starts with the first prediction of a new face, and ends
when the face was not detected for some time. The displayed range changes only if another one is ahead by a margin: for
the decoding `likeliest`, in probability; for `median`, if the probability of all ranges on one side exceeds that of the
rest by the margin.
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
"""Time constant of the average, s: a prediction of that age has about a third of its initial weight."""
MARGIN = 0.05
"""Probability by which another range, or one side, must be ahead for the displayed range to change."""
PATIENCE = 0.7
"""Time without a detection after which a track ends, s."""
FRAMES = 1.5
"""The same as a multiple of the time between the last two frames, for slow sources."""
OVERLAP = 0.3
"""Least intersection over union of a face with its track."""


@dataclass
class Track:
    """A face in successive frames."""

    number: int
    """Number of the track, from 1, never reused."""
    face: Face
    """The last detection."""
    probabilities: NDArray[np.float64]
    """Averaged probabilities, `(classes,)`."""
    years: float
    """Averaged age in years, not clipped to the displayed range."""
    seen: float
    """Time of the last detection, s."""
    rule: Rule = Rule()
    """Decoding and threshold of the model's prediction sets."""
    frames: int = 1
    """Number of detections."""
    label: int = field(init=False)
    """Class of the displayed range."""

    def __post_init__(self) -> None:
        self.label = _decoded(self.probabilities, self.rule.decoding)

    @property
    def probability(self) -> float:
        """Averaged probability of the displayed range."""
        return float(self.probabilities[self.label])

    @property
    def ends(self) -> tuple[int, int] | None:
        """First and last class of the 90 % prediction set with the displayed range added; None without calibration."""
        decoding, threshold = self.rule
        if threshold is None:
            return None
        (first,), (last,) = sets(self.probabilities[None], threshold, decoding)
        return min(int(first), self.label), max(int(last), self.label)

    def age(self, ranges: AgeRanges) -> float:
        """The averaged age in years, clipped to the displayed range, which may lag behind."""
        return float(ranges.within(np.array([self.label]), np.array([self.years]))[0])

    def add(self, face: Face, probabilities: NDArray[np.float64], years: float, now: float) -> None:
        """Add the prediction of another frame.

        Args:
            face: the detection.
            probabilities: of the ranges, `(classes,)`.
            years: predicted age in years.
            now: time of the frame, s.
        """
        share = max(1 - math.exp(-max(now - self.seen, 0.0) / MEMORY), 1 / (self.frames + 1))
        self.probabilities = (1 - share) * self.probabilities + share * probabilities
        self.years = (1 - share) * self.years + share * years
        self.face, self.seen, self.frames = face, now, self.frames + 1
        if _lead(self.probabilities, self.label, self.rule.decoding) > MARGIN:
            self.label = _decoded(self.probabilities, self.rule.decoding)


def _decoded(probabilities: NDArray[np.float64], decoding: Decoding) -> int:
    return int(decide(probabilities[None], decoding)[0])


def _lead(probabilities: NDArray[np.float64], displayed: int, decoding: Decoding) -> float:
    """Probability by which the displayed range is behind; at most 0 if it is still the prediction."""
    if decoding == "likeliest":
        return float(probabilities.max() - probabilities[displayed])
    younger, older = float(probabilities[:displayed].sum()), float(probabilities[displayed + 1 :].sum())
    return 2 * max(younger, older) - float(probabilities.sum())


class Tracker:
    """The tracks of all faces that were detected recently."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._count = 0
        self._last: float | None = None
        self._interval = 0.0

    def reset(self) -> None:
        """End all tracks."""
        self._tracks = []

    def update(self, faces: Sequence[Face], found: Prediction, now: float, rule: Rule = Rule()) -> list[Track]:
        """Update the tracks by the faces of a frame.

        Args:
            faces: the faces.
            found: the prediction of each face.
            now: time of the frame, s; never less than that of the last one.
            rule: decoding and threshold of the model's prediction sets.

        Returns:
            The track of each face, in their order.
        """
        # a source with a frame a second must not end its tracks after each frame
        patience = max(PATIENCE, FRAMES * self._interval)
        self._tracks = [track for track in self._tracks if now - track.seen <= patience]
        self._interval = 0.0 if self._last is None else now - self._last
        self._last = now
        matched = _matched(self._tracks, faces)
        current = []
        for at, face in enumerate(faces):
            probabilities, years = found.probabilities[at].astype(np.float64), float(found.years[at])
            if at in matched:
                matched[at].add(face, probabilities, years, now)
            else:
                self._count += 1
                matched[at] = Track(self._count, face, probabilities, years, now, rule)
                self._tracks.append(matched[at])
            current.append(matched[at])
        return current


def _matched(tracks: Sequence[Track], faces: Sequence[Face]) -> dict[int, Track]:
    """Match faces to tracks, the pairs with the largest overlap first; the index of a face gives its track."""
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
    """Intersection over union of two boxes (left, top, width, height), `(4,)`; 0 for boxes without area."""
    start = np.maximum(one[:2], other[:2])
    end = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    common = float(np.prod(np.maximum(end - start, 0)))
    union = float(one[2] * one[3] + other[2] * other[3]) - common
    return common / union if union > 0 else 0.0
