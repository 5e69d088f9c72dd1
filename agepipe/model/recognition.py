"""Find copies that were cropped, shifted, rotated slightly or given a border.

After its bits, a perceptual hash contains a sketch: the lowest frequencies of the picture, one byte each. The middle of
each seen picture is compared with cuts of the other picture at several scales and angles, also mirrored, by frequencies
so low that a few cuts are enough. The most similar pairs are aligned (Evangelidis and Psarakis, "Parametric image
alignment using enhanced correlation coefficient maximization", 2008). They count as one photograph if the aligned
sketches agree.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

WAVES = 22
"""A sketch has the frequencies with at most this number of half waves, across and down together."""
SIDE = 36
"""Side of the pictures that are aligned, px."""
RIM = 4
"""Px on each side of a seen picture that are not compared, because a copy may lack them."""
SOFT = 15.0
"""Half waves a side at which frequencies are attenuated to 1/e, because a copy differs in the fine ones."""
SIMILAR = 0.94
"""Cosine of the low frequencies above which a pair is aligned."""
SAME = 0.978
"""Correlation of aligned sketches above which a pair is one photograph.

Of the 227 million pairs of UTKFace's chips that `duplicates.groups` does not join, all 36 from 0.964 to 0.984 were
inspected by eye: two show the same child a moment later, all others one photograph. Drawn faces, which are more
similar, reach 0.976.
"""
CANDIDATES = 8
"""Maximum number of pairs that are aligned for a picture, the most similar first."""
BLOCK = 128
"""Pictures that are compared at a time..."""
BLOCK_SEEN = 2048
"""...with this number of seen ones, so that the data fit the processor's cache."""

_BYTE = 150.0
_COARSE = 7
"""Maximum half waves of the frequencies by which cuts are compared."""
_POINTS = 12
_SCALES = (0.9, 1.0, 1.1, 1.22)
"""Sides of the cuts, relative to the middle of a seen picture; a cropped copy needs a wider cut."""
_ANGLES = (-8.0, -4.0, 0.0, 4.0, 8.0)
_ASIDE = ((1.05, 0.026), (1.1, 0.053))
"""Scale and offset of the middle, relative to the side, for a copy that was cropped on one or two sides only."""
_STRETCH = 1.15
"""Maximum ratio of the stretch in two directions of an alignment; above it the pair is no copy."""
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
_EVERYWHERE = np.full((SIDE, SIDE), 255, dtype=np.uint8)

Floats = NDArray[np.float32]


class Cut(NamedTuple):
    """A possible position of the middle of a seen picture in a copy, about the centre of both, relative to the side."""

    scale: float
    angle: float
    aside: tuple[float, float]
    mirrored: bool

    def matrix(self) -> NDArray[np.float64]:
        """The 2×2 matrix that maps a point of the seen picture to the copy."""
        turn = np.deg2rad(self.angle)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * self.scale
        return rotation @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])


def sketched(frequencies: NDArray[np.floating]) -> list[bytes]:
    """The sketches of pictures from their DCT, `(n, rows, columns)` with more than `WAVES` rows and columns."""
    rows, columns, weights = _waves()
    found = np.asarray(frequencies[:, rows, columns] * weights, dtype=np.float32)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    return [one.tobytes() for one in np.clip(np.rint(found * _BYTE), -127, 127).astype(np.int8)]


def recognised(sketches: Sequence[bytes], seen: Sequence[bytes], margin: float = 0.0) -> NDArray[np.int64]:
    """For each sketch the position of one in `seen` that is of the same photograph, or -1; int64 `(len(sketches),)`.

    Args:
        sketches: from `sketched`; an empty one, from a hash of an earlier version, is never recognised.
        seen: the sketches among which to search.
        margin: by how much `SIMILAR` and `SAME` are lowered.
    """
    found = np.full(len(sketches), -1, dtype=np.int64)
    # numpy's threads busy-wait between thousands of small products: two processes at once took over six times as long.
    # With one thread each takes as long as it does alone.
    with threadpool_limits(1, "blas"):
        rows, asked = _numbers(sketches)
        places, known = _numbers(seen)
        if len(rows) == 0 or len(places) == 0:
            return found
        for row, at in _matches(asked, known, margin):
            found[rows[row]] = places[at]
    return found


def _matches(asked: Floats, known: Floats, margin: float) -> Iterator[tuple[int, int]]:
    """Rows of `asked` that are of a photograph in `known`, each with its first match."""
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
    """The largest cosine of any cut, `(cuts, pictures, frequencies)`, with each middle, float32 `(pictures, seen)`."""
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
    """Correlation of the middle of a seen picture with the best-fitting part of another, starting from a cut."""
    middle = _picture(seen)[RIM:-RIM, RIM:-RIM]
    matrix, centre = cut.matrix(), np.full(2, (SIDE - 1) / 2)
    offset = centre + SIDE * np.array(cut.aside) - matrix @ (centre - RIM)
    guess = np.column_stack([matrix, offset]).astype(np.float32)
    try:
        fitting = _picture(other, cut.scale)
        found, warp = cv2.findTransformECC(middle, fitting, guess, cv2.MOTION_AFFINE, _STEPS, _EVERYWHERE, 1)
    except cv2.error:
        return -1.0  # it does not converge, because no part of the other picture fits
    stretch = np.linalg.svd(warp[:, :2], compute_uv=False)
    plausible = stretch[0] < _STRETCH * stretch[1] and stretch[1] > 0.7 and stretch[0] < 1.4
    return float(found) if plausible else -1.0


def _picture(sketch: Floats, scale: float = 1.0) -> Floats:
    """Render a sketch as a picture with emphasised edges, smoothed for the scale; float32 `(SIDE, SIDE)`."""
    return np.asarray((_painting(scale) @ sketch).reshape(SIDE, SIDE), dtype=np.float32)


def _numbers(sketches: Sequence[bytes]) -> tuple[NDArray[np.int64], Floats]:
    """Positions of the sketches that are not empty, and their values, `(n, waves)`."""
    width = len(_waves()[0])
    rows = np.array([at for at, one in enumerate(sketches) if len(one) == width], dtype=np.int64)
    values = np.frombuffer(b"".join(one for one in sketches if len(one) == width), dtype=np.int8)
    return rows, values.reshape(-1, width).astype(np.float32)


def _unit(values: Floats) -> Floats:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), dtype=np.float32)


@cache
def _waves() -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Rows and columns of the frequencies of a sketch without the mean, and weights that grow with the frequency."""
    rows, columns = np.indices((WAVES + 1, WAVES + 1)).reshape(2, -1)
    inside = (rows + columns <= WAVES) & (rows + columns > 0)
    rows, columns = rows[inside], columns[inside]
    return rows, columns, np.hypot(rows, columns).astype(np.float32)


def _values_at(x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """The value of each frequency of a sketch at points of the picture, whose side is 1; `(points, waves)`."""
    rows, columns, _ = _waves()
    twice = np.where(rows > 0, 2**0.5, 1) * np.where(columns > 0, 2**0.5, 1)
    return np.asarray(
        np.cos(np.pi * np.outer(y, rows)) * np.cos(np.pi * np.outer(x, columns)) * twice, dtype=np.float32
    )


@cache
def _painting(scale: float) -> Floats:
    """The matrix that renders a sketch as a picture."""
    x, y = _grid(SIDE)
    fading = np.exp(-((_waves()[2] * scale / SOFT) ** 2))
    return np.asarray(_values_at(x, y) * fading, dtype=np.float32)


def _grid(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places = (np.arange(points) + 0.5) / points
    x, y = np.meshgrid(places, places)
    return x.ravel(), y.ravel()


@cache
def _cuts() -> list[tuple[Cut, Floats]]:
    """All cuts, each with the matrix that maps a sketch to the low frequencies of that cut."""
    straight = [(scale, angle, (0.0, 0.0)) for scale in _SCALES for angle in _ANGLES]
    around = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    aside = [(scale, 0.0, (x * far, y * far)) for scale, far in _ASIDE for x, y in around]
    cuts = [Cut(*one, mirrored) for one in (*straight, *aside) for mirrored in (False, True)]
    return [(cut, _low(cut)) for cut in cuts]


@cache
def _middle() -> Floats:
    """The matrix that maps a sketch to the low frequencies of its middle."""
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
