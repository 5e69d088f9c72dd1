"""A canvas for soft shapes: smooth curves, tapered strokes and glows, painted with anti-aliased masks.

Pixels are planar float32 `(3, side, side)`, RGB from 0 to 255, because NumPy blends planes far faster than triples.
Points are `(n, 2)` in chip px, x first; the canvas moves them through the pose of the head before it paints.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 200
"""Side of a chip, px: UTKFace's own."""

Floats = NDArray[np.float32]
Mask = NDArray[np.uint8]
Array = NDArray[np.float64]
Shape = Sequence[tuple[float, float]]
Colour = Sequence[float] | Floats

_TURNS = [(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)]
_ACROSS = np.array([-1.0, 1.0])
_STEPS = np.arange(SIDE, dtype=np.float32)
_SHIFT = 4  # cv2 takes coordinates in sixteenths of a px, which keeps edges smooth


@lru_cache(maxsize=64)
def _weights(points: int, closed: bool, samples: int) -> NDArray[np.float64]:
    """Catmull-Rom interpolation as one matrix `(pieces × samples, points)`, so that a curve is one product."""
    pieces = points if closed else points - 1
    t = np.linspace(0, 1, samples, endpoint=False)
    basis = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1)
    whole = np.zeros((pieces, samples, points))
    for piece in range(pieces):
        for column, offset in enumerate((-1, 0, 1, 2)):
            at = (piece + offset) % points if closed else min(max(piece + offset, 0), points - 1)
            whole[piece, :, at] += basis[:, column]
    flat = whole.reshape(-1, points)
    return flat if closed else np.vstack([flat, np.eye(points)[-1]])


def curve(points: Shape | Array, closed: bool = False) -> Array:
    """Smooth curves through the points, `(..., n, 2)` in px to `(..., m, 2)`; lines of one length go together."""
    array = np.asarray(points, dtype=np.float64)
    return np.asarray(_weights(array.shape[-2], closed, 6) @ array)


@lru_cache(maxsize=16)
def _taper(samples: int) -> Array:
    return np.asarray(np.sin(np.linspace(0.12, np.pi - 0.12, samples))[:, None] / 2)


def ribbon(points: Sequence[Shape] | Array, width: float) -> Array:
    """The outlines of strokes `(k, n, 2)` that are `width` px wide in the middle and taper to their ends."""
    line = curve(np.asarray(points))
    along = np.empty_like(line)
    along[:, 1:-1] = line[:, 2:] - line[:, :-2]
    along[:, [0, -1]] = along[:, [1, -2]]
    across = along[..., ::-1] * _ACROSS / (np.hypot(along[..., :1], along[..., 1:]) + 1e-6)
    across *= _taper(line.shape[1]) * width
    return np.concatenate([line + across, (line - across)[:, ::-1]], axis=1)


class Canvas:
    """A chip in the making."""

    def __init__(self, colour: Colour, pose: NDArray[np.float64]) -> None:
        """Start with one colour; `pose` is the affine `(2, 3)` from the face's frame to the chip."""
        self.image: Floats = np.empty((3, SIDE, SIDE), np.float32)
        self.image[:] = np.asarray(colour, np.float32)[:, None, None]
        self._turned, self._moved = pose[:, :2].T, pose[:, 2]

    def place(self, points: Array) -> Array:
        """The points where the pose puts them on the chip."""
        return np.asarray(points @ self._turned + self._moved)

    def mask(self, outlines: Array, soft: float = 0.0) -> Mask:
        """The union of closed outlines `(k, n, 2)`, uint8 `(side, side)`; edges blurred by `soft` px."""
        found = np.zeros((SIDE, SIDE), np.uint8)
        placed = self._sixteenths(outlines)
        for outline in placed:
            cv2.fillPoly(found, [outline], 255, cv2.LINE_AA, _SHIFT)
        return _blurred(found, placed, soft)

    def threads(self, lines: Array, width: int = 1, soft: float = 0.0) -> Mask:
        """Thin open lines `(k, n, 2)`, such as hair, uint8 `(side, side)`."""
        found = np.zeros((SIDE, SIDE), np.uint8)
        placed = self._sixteenths(lines)
        cv2.polylines(found, list(placed), False, 255, width, cv2.LINE_AA, _SHIFT)
        return _blurred(found, placed, soft)

    def _sixteenths(self, points: Array) -> NDArray[np.int32]:
        return np.asarray(self.place(points) * 2**_SHIFT).astype(np.int32)

    def paint(self, mask: Mask, colour: Colour, opacity: float = 1.0, clip: Mask | None = None) -> None:
        """Lay a colour over the chip where the mask is; `clip` bounds it further."""
        x, y, w, h = cv2.boundingRect(mask)
        if w and opacity > 0:
            self._blend(x, y, mask[y : y + h, x : x + w] * np.float32(opacity / 255), colour, clip)

    def _blend(self, x: int, y: int, alpha: Floats, colour: Colour, clip: Mask | None) -> None:
        """Blend a colour in over the window at `(x, y)` that has the shape of `alpha`."""
        down, across = slice(y, y + alpha.shape[0]), slice(x, x + alpha.shape[1])
        if clip is not None:
            alpha *= clip[down, across] * np.float32(1 / 255)
        part = self.image[:, down, across]
        change = np.asarray(colour, np.float32)[:, None, None] - part
        change *= alpha
        part += change

    def fill(
        self,
        points: Shape | Sequence[Shape] | Array,
        colour: Colour,
        opacity: float = 1.0,
        soft: float = 0.0,
        clip: Mask | None = None,
    ) -> None:
        """Paint the smooth closed shape through the points `(n, 2)`, or several at once `(k, n, 2)`."""
        outlines = curve(np.asarray(points), closed=True)
        self.paint(self.mask(outlines.reshape(-1, *outlines.shape[-2:]), soft), colour, opacity, clip)

    def stroke(
        self,
        lines: Sequence[Shape] | Array,
        width: float,
        colour: Colour,
        opacity: float = 1.0,
        soft: float = 0.0,
        clip: Mask | None = None,
    ) -> None:
        """Paint tapered strokes through lines of as many points each, `(k, n, 2)`."""
        if len(lines):
            self.paint(self.mask(ribbon(lines, width), soft), colour, opacity, clip)

    def glow(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, opacity: float, clip: Mask | None = None
    ) -> None:
        """Paint a soft ellipse, a normal density with deviations of `rx` and `ry` px."""
        (cx, cy) = self.place(np.array([x, y])).tolist()
        left, right = max(int(cx - 3 * rx), 0), min(int(cx + 3 * rx) + 1, SIDE)
        top, bottom = max(int(cy - 3 * ry), 0), min(int(cy + 3 * ry) + 1, SIDE)
        if left < right and top < bottom and opacity > 0:
            across = np.exp(-0.5 * ((_STEPS[left:right] - np.float32(cx)) / np.float32(rx)) ** 2)
            down = np.exp(-0.5 * ((_STEPS[top:bottom] - np.float32(cy)) / np.float32(ry)) ** 2)
            self._blend(left, top, down[:, None] * across * np.float32(min(opacity, 1.0)), colour, clip)

    def add(self, field: Floats, clip: Mask | None = None) -> None:
        """Add a field, `(side, side)` or `(3, side, side)`, to the chip."""
        self.image += field if clip is None else field * (clip * np.float32(1 / 255))


def _blurred(mask: Mask, placed: NDArray[np.int32], soft: float) -> Mask:
    """Blur what was drawn through these points, and no more of the mask than needed."""
    if soft <= 0:
        return mask
    if soft >= 5:
        small = cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(cv2.GaussianBlur(small, (0, 0), soft / 4), (SIDE, SIDE)), np.uint8)
    margin = int(3 * soft) + 2
    x, y = placed[..., 0], placed[..., 1]
    left, top = (max((int(axis.min()) >> _SHIFT) - margin, 0) for axis in (x, y))
    right, bottom = (max((int(axis.max()) >> _SHIFT) + margin, 0) for axis in (x, y))
    window = mask[top:bottom, left:right]
    if window.size:
        cv2.GaussianBlur(window, (0, 0), soft, dst=window)
    return mask


def ellipse(x: float, y: float, rx: float, ry: float) -> list[tuple[float, float]]:
    """Eight points on an ellipse."""
    return [(x + rx * c, y + ry * s) for c, s in _TURNS]


def clouds(rng: np.random.Generator, *layers: tuple[int, float]) -> Floats:
    """Smooth noise, float32 `(side, side)`: the sum of layers, coarse before fine.

    Args:
        rng: where chance comes from.
        layers: cells a side, and deviation, of each layer.
    """
    field = np.zeros((1, 1), np.float32)
    for cells, strength in layers:
        field = np.asarray(cv2.resize(field, (cells, cells), interpolation=cv2.INTER_CUBIC), np.float32)
        field += rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(strength)
    return np.asarray(cv2.resize(field, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.float32)


def grains(rng: np.random.Generator, strength: float) -> Floats:
    """Even noise of each px by itself, float32 `(side, side)`, of `strength` in deviation: a camera's grain."""
    noise = np.frombuffer(rng.bytes(SIDE * SIDE), np.uint8).reshape(SIDE, SIDE) - np.float32(127.5)
    return np.asarray(noise * np.float32(strength / 73.9), np.float32)


def rgb(*values: float) -> Floats:
    """Three numbers as float32 `(3,)`: a colour, or a factor on one."""
    return np.array(values, np.float32)
