"""The second look: finds copies that were cropped, shifted, turned a little or given a border.

Behind its bits the look of a photograph has a sketch: its lowest frequencies, one byte each. The middle of each seen
picture is compared with cuts of the other picture at several scales and angles, mirrored as well, by frequencies so low
that a few cuts are enough. The most similar pairs are aligned (Evangelidis and Psarakis, "Parametric image alignment
using enhanced correlation coefficient maximization", 2008), and count as one photograph where the aligned sketches
agree.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

WAVES = 22
"""A sketch has the frequencies whose half waves from left to right and from top to bottom are so many together."""
SIDE = 36
"""Side of the pictures that are aligned, px."""
RIM = 4
"""Px on each side of a seen picture that are not compared: a copy may have lost them."""
SOFT = 15.0
"""Frequencies fade towards this many half waves a side of the seen picture, for a copy has other fine ones."""
SIMILAR = 0.94
"""Cosine of the low frequencies from which a pair is aligned."""
SAME = 0.978
"""Correlation of aligned sketches above which a pair is one photograph.

Of the 227 million pairs of UTKFace's chips that `duplicates.groups` does not join, all pairs from 0.964 to 0.984 were
looked at by eye: 36, of which two show the same child a moment later and all others one photograph. Drawn faces, which
are more alike, reach 0.976.
"""
CANDIDATES = 8
"""So many pairs are aligned for a picture, the most similar first."""
BLOCK = 128
"""Pictures that are compared at a time..."""
BLOCK_SEEN = 2048
"""...with so many seen ones, so that the work stays in the processor's cache."""

_BYTE = 150.0
_COARSE = 7
"""Half waves of the frequencies by which cuts are compared."""
_POINTS = 12
_SCALES = (0.9, 1.0, 1.1, 1.22)
"""Sides of the cuts, of that of the middle of a seen picture: a copy that was cropped is cut wider."""
_ANGLES = (-8.0, -4.0, 0.0, 4.0, 8.0)
_ASIDE = ((1.05, 0.026), (1.1, 0.053))
"""Scale, and how far the middle lies aside, of its side, where a copy was cropped on one or two sides only."""
_STRETCH = 1.15
"""An alignment that stretches one direction so much more than another is no copy's."""
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
_EVERYWHERE = np.full((SIDE, SIDE), 255, dtype=np.uint8)

Floats = NDArray[np.float32]


class Cut(NamedTuple):
    """Where the middle of a seen picture may lie in a copy: about the centre of both, in parts of the side."""

    scale: float
    angle: float
    aside: tuple[float, float]
    mirrored: bool

    def matrix(self) -> NDArray[np.float64]:
        """The 2×2 matrix that takes a place in the seen picture to its place in the copy."""
        turn = np.deg2rad(self.angle)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * self.scale
        return rotation @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])


def sketched(frequencies: NDArray[np.floating]) -> list[bytes]:
    """The sketches of pictures, from their DCT `(n, more than WAVES, more than WAVES)`."""
    rows, columns, weights = _waves()
    found = np.asarray(frequencies[:, rows, columns] * weights, dtype=np.float32)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    return [one.tobytes() for one in np.clip(np.rint(found * _BYTE), -127, 127).astype(np.int8)]


def recognised(sketches: Sequence[bytes], seen: Sequence[bytes], margin: float = 0.0) -> NDArray[np.int64]:
    """For each sketch the position of one in `seen` that shows the same photograph, or -1; int64 `(len(sketches),)`.

    Args:
        sketches: from `sketched`; an empty one, as looks of earlier versions have it, is never recognised.
        seen: likewise.
        margin: how much less than usual the two correlations may be.
    """
    found = np.full(len(sketches), -1, dtype=np.int64)
    # Thousands of small products, between which numpy's threads wait for each other awake. Two processes that did so at
    # once took over six times as long; with one thread each takes as long as alone.
    with threadpool_limits(1, "blas"):
        rows, asked = _numbers(sketches)
        places, known = _numbers(seen)
        if len(rows) == 0 or len(places) == 0:
            return found
        for row, at in _matches(asked, known, margin):
            found[rows[row]] = places[at]
    return found


def _matches(asked: Floats, known: Floats, margin: float) -> Iterator[tuple[int, int]]:
    """Rows of `asked` that show a photograph of `known`, each with the first that agrees."""
    cuts = _cuts()
    middles = _unit(known @ _middle().T)
    for start in range(0, len(asked), BLOCK):
        part = asked[start : start + BLOCK]
        turned = np.stack([_unit(part @ low.T) for _, low in cuts])
        close = _closeness(turned, middles)
        for row in np.flatnonzero(close.max(axis=1) > SIMILAR - margin).tolist():
            for at in _most_similar(close[row], SIMILAR - margin):
                cut = cuts[int((turned[:, row] @ middles[at]).argmax())][0]
                if _agreement(known[at], part[row], cut) > SAME - margin:
                    yield start + row, at
                    break


def _closeness(turned: Floats, middles: Floats) -> Floats:
    """The largest cosine of the cuts `(cuts, pictures, frequencies)` with each middle, float32 `(pictures, seen)`."""
    close = np.empty((turned.shape[1], len(middles)), dtype=np.float32)
    for start in range(0, len(middles), BLOCK_SEEN):
        part = np.ascontiguousarray(middles[start : start + BLOCK_SEEN].T)
        best = turned[0] @ part
        room = np.empty_like(best)
        for cut in turned[1:]:
            np.maximum(best, np.matmul(cut, part, out=room), out=best)
        close[:, start : start + BLOCK_SEEN] = best
    return close


def _most_similar(close: Floats, least: float) -> list[int]:
    candidates = np.flatnonzero(close > least)
    order = np.argsort(-close[candidates], kind="stable")[:CANDIDATES]
    found: list[int] = candidates[order].tolist()
    return found


def _agreement(seen: Floats, other: Floats, cut: Cut) -> float:
    """Correlation of the middle of a seen picture with that part of another which fits it best, from a first guess."""
    middle = _picture(seen)[RIM:-RIM, RIM:-RIM]
    matrix, centre = cut.matrix(), np.full(2, (SIDE - 1) / 2)
    offset = centre + SIDE * np.array(cut.aside) - matrix @ (centre - RIM)
    guess = np.column_stack([matrix, offset]).astype(np.float32)
    try:
        fitting = _picture(other, cut.scale)
        found, warp = cv2.findTransformECC(middle, fitting, guess, cv2.MOTION_AFFINE, _STEPS, _EVERYWHERE, 1)
    except cv2.error:
        return -1.0  # it does not converge: nothing in the other picture fits
    stretch = np.linalg.svd(warp[:, :2], compute_uv=False)
    plausible = stretch[0] < _STRETCH * stretch[1] and stretch[1] > 0.7 and stretch[0] < 1.4
    return float(found) if plausible else -1.0


def _picture(sketch: Floats, scale: float = 1.0) -> Floats:
    """The sketch as a picture whose edges stand out, as soft as a seen one at that scale; float32 `(SIDE, SIDE)`."""
    return np.asarray((_painting(scale) @ sketch).reshape(SIDE, SIDE), dtype=np.float32)


def _numbers(sketches: Sequence[bytes]) -> tuple[NDArray[np.int64], Floats]:
    """Positions of the sketches that are not empty, and their values `(n, waves)`."""
    width = len(_waves()[0])
    rows = np.array([at for at, one in enumerate(sketches) if len(one) == width], dtype=np.int64)
    values = np.frombuffer(b"".join(one for one in sketches if len(one) == width), dtype=np.int8)
    return rows, values.reshape(-1, width).astype(np.float32)


def _unit(values: Floats) -> Floats:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), dtype=np.float32)


@cache
def _waves() -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Rows and columns of the frequencies of a sketch, the mean left out, and their weights: the finer the more."""
    rows, columns = np.indices((WAVES + 1, WAVES + 1)).reshape(2, -1)
    inside = (rows + columns <= WAVES) & (rows + columns > 0)
    rows, columns = rows[inside], columns[inside]
    return rows, columns, np.hypot(rows, columns).astype(np.float32)


def _values_at(x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """What each frequency of a sketch adds at places of the picture, which has the side 1; `(places, waves)`."""
    rows, columns, _ = _waves()
    twice = np.where(rows > 0, 2**0.5, 1) * np.where(columns > 0, 2**0.5, 1)
    return np.asarray(
        np.cos(np.pi * np.outer(y, rows)) * np.cos(np.pi * np.outer(x, columns)) * twice, dtype=np.float32
    )


@cache
def _painting(scale: float) -> Floats:
    """The matrix that makes a picture of a sketch."""
    x, y = _grid(SIDE)
    fading = np.exp(-((_waves()[2] * scale / SOFT) ** 2))
    return np.asarray(_values_at(x, y) * fading, dtype=np.float32)


def _grid(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places = (np.arange(points) + 0.5) / points
    x, y = np.meshgrid(places, places)
    return x.ravel(), y.ravel()


@cache
def _cuts() -> list[tuple[Cut, Floats]]:
    """All cuts, each with the matrix that takes a sketch to the low frequencies of that cut."""
    straight = [(scale, angle, (0.0, 0.0)) for scale in _SCALES for angle in _ANGLES]
    around = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    aside = [(scale, 0.0, (x * far, y * far)) for scale, far in _ASIDE for x, y in around]
    cuts = [Cut(*runtime, mirrored) for runtime in (*straight, *aside) for mirrored in (False, True)]
    return [(cut, _low(cut)) for cut in cuts]


@cache
def _middle() -> Floats:
    """The matrix that takes a sketch to the low frequencies of its middle."""
    return _low(Cut(1.0, 0.0, (0.0, 0.0), False))


def _low(cut: Cut) -> Floats:
    x, y = _grid(_POINTS)
    rows, columns = np.indices((_POINTS, _POINTS)).reshape(2, -1)
    few = (rows + columns <= _COARSE) & (rows + columns > 0)
    rows, columns = rows[few], columns[few]
    waves = np.cos(np.pi * np.outer(rows, y)) * np.cos(np.pi * np.outer(columns, x)) * np.hypot(rows, columns)[:, None]
    inside = np.stack([x - 0.5, y - 0.5]) * (SIDE - 2 * RIM) / SIDE
    copied = cut.matrix() @ inside + 0.5 + np.array(cut.aside)[:, None]
    return np.asarray(waves @ (_values_at(*copied) / _waves()[2]), dtype=np.float32)
