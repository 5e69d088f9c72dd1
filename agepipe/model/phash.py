"""The perceptual hash of a picture, by which copies of a photograph are recognised.

A perceptual hash has 256 bits, by which `near` finds re-encoded copies, and then a sketch of the picture, by which
`agepipe.model.recognition` finds copies that are cropped or turned. Tables store it in the column `look`.
"""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.recognition import recognised, sketched

BITS = 256
"""Bits of a perceptual hash."""
LOOK_SIDE = 36
"""Side of the grey picture whose frequencies are hashed, px."""
COPY_BITS = 24
"""Hashes that differ in at most this number of bits are of one photograph.

Measured on UTKFace chips stored at 108 px. 2,666 chips saved again as JPEG of quality 50, resized to 80 % and back, or
blurred (sigma 1 px), and all three in a row: the distance is at most 9, so none is missed (quality 20: 16; stored at
64, 72 or 144 px: 12; grey: 4; 10 % more contrast and brighter: 1 missed). Of the 227 million pairs that `groups` does
not join, 5 lie within 24 bits. By eye each of them is one photograph cropped twice, and so are the 5 others that lie
within 31 bits. A copy cropped by 1 % of its side is missed in 15 % of the cases, by 2 % in nearly all.
"""
BLOCK_PAIRS = 1 << 20
"""Pairs of hashes that are compared at a time, so that the data fit the processor's cache."""
TALL = 256
"""Pictures that are shrunk at a time."""


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pictures, uint8 `(n, size, size)`, of RGB ones, uint8 `(n, size, size, 3)`; grey ones unchanged."""
    if pixels.ndim == 3 or len(pixels) == 0:
        return pixels.reshape(pixels.shape[:3])
    count, size = pixels.shape[:2]
    grey = cv2.cvtColor(pixels.reshape(count * size, size, 3), cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, dtype=np.uint8).reshape(count, size, size)


def halved(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pictures, uint8 `(n, size, size)`, halved repeatedly while they stay at least `LOOK_SIDE` px wide.

    Halving is far quicker than shrinking in one step. `thumbnails` and `perceptual_hashes` halve their pictures
    themselves; a caller that needs both halves them once.
    """
    while grey.shape[1] < LOOK_SIDE:
        grey = grey.repeat(2, axis=1).repeat(2, axis=2)  # enlarging a tall picture would mix its parts
    while grey.shape[1] % 2 == 0 and grey.shape[1] >= 2 * LOOK_SIDE:
        grey = shrunk(grey, grey.shape[1] // 2)
    return grey


def shrunk(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Average uint8 `(n, size, size)` into uint8 `(n, side, side)`.

    They are shrunk as one tall picture, which is quick. Pictures do not mix, because the borders between them fall
    between output rows.
    """
    count, size = grey.shape[:2]
    tall = cv2.resize(grey.reshape(count * size, size), (side, count * side), interpolation=cv2.INTER_AREA)
    return np.asarray(tall, dtype=np.uint8).reshape(count, side, side)


def perceptual_hashes(pixels: NDArray[np.uint8]) -> list[bytes]:
    """The perceptual hash of each RGB or grey picture of uint8 `(n, size, size[, 3])`: 256 bits, then a sketch.

    The bits are the signs of the 256 lowest frequencies of the small grey picture, without the mean (DCT hash):
    brightness, contrast, size, colour and compression hardly change them. The sketch is that of
    `agepipe.model.recognition.sketched`.
    """
    waves, rows, columns = _lowest()
    small = np.empty((len(pixels), LOOK_SIDE, LOOK_SIDE), dtype=np.float32)
    for start in range(0, len(pixels), TALL):
        small[start : start + TALL] = shrunk(halved(luma(pixels[start : start + TALL])), LOOK_SIDE)
    frequencies = waves @ small @ waves.T
    bits = np.packbits(frequencies[:, rows, columns] > 0, axis=1)
    return [one.tobytes() + sketch for one, sketch in zip(bits, sketched(frequencies), strict=True)]


def sketches(hashes: Sequence[bytes]) -> list[bytes]:
    """The sketch of each hash; empty for a hash of an earlier version, which has only the bits."""
    return [one[BITS // 8 :] for one in hashes]


@cache
def _lowest() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The basis of a DCT, and rows and columns of its `BITS` lowest frequencies without the mean."""
    row, column = np.indices((LOOK_SIDE, LOOK_SIDE)).reshape(2, -1)
    order = np.lexsort((row, row + column))[1 : BITS + 1]
    rows, columns = row[order], column[order]
    waves = np.asarray(cv2.dct(np.eye(LOOK_SIDE, dtype=np.float32), flags=cv2.DCT_ROWS), dtype=np.float32).T
    return waves[: max(rows.max(), columns.max()) + 1], rows.astype(np.int64), columns.astype(np.int64)


def oriented(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """The bits of each hash for all eight orientations of its picture: unchanged, mirrored, and both rotated by 90°.

    They are computed from the bits alone and are exact but for at most four of 256: a rotation by 90° exchanges rows
    and columns, and some of the highest frequencies have no counterpart among the bits.
    """
    bits = np.unpackbits(words(hashes).T.copy().view(np.uint8), axis=1)
    return [[row.tobytes() for row in np.packbits(bits[:, order] ^ odd, axis=1)] for order, odd in _orientations()]


@cache
def _orientations() -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """For each orientation the order of the bits, and which bits change; unchanged is first, mirrored second."""
    _, rows, columns = _lowest()
    place = {wave: at for at, wave in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))}
    straight = np.arange(BITS, dtype=np.int64)
    across = np.array([place.get((column, row), at) for (row, column), at in place.items()], dtype=np.int64)
    found = []
    for order in (straight, across):
        for upside in (0, 1):
            for sideways in (0, 1):
                odd = (rows * upside + columns * sideways) % 2
                found.append((order, odd.astype(np.uint8)))
    return found


def mirror() -> bytes:
    """The bits of a hash that change if the picture is mirrored."""
    return np.packbits(_orientations()[1][1]).tobytes()


def near(looks_a: Sequence[bytes], looks_b: Sequence[bytes], limit: int = COPY_BITS) -> NDArray[np.int64]:
    """For each hash of `a` the position in `b` of the nearest hash within `limit` bits, or -1; int64 `(len(a),)`.

    Of equally near ones the first is taken.
    """
    a, b = words(looks_a), words(looks_b)
    found = np.full(a.shape[1], -1, dtype=np.int64)
    if b.shape[1] == 0:
        return found
    step = max(1, BLOCK_PAIRS // b.shape[1])
    for start in range(0, a.shape[1], step):
        part = a[:, start : start + step]
        differing = np.zeros((part.shape[1], b.shape[1]), dtype=np.uint16)
        for left, right in zip(part, b, strict=True):
            differing += np.bitwise_count(left[:, None] ^ right)
        best = differing.argmin(axis=1)
        close = differing[np.arange(len(best)), best] <= limit
        found[start : start + step] = np.where(close, best, -1)
    return found


def words(hashes: Sequence[bytes]) -> NDArray[np.uint64]:
    """The bits of hashes as uint64 `(4, n)`."""
    return np.frombuffer(b"".join(one[: BITS // 8] for one in hashes), dtype=np.uint64).reshape(-1, BITS // 64).T.copy()


def copies_among(hashes: Sequence[bytes], known: Sequence[bytes], limit: int, margin: float) -> NDArray[np.int64]:
    """For each hash the position of one in `known` that is of the same photograph, or -1; int64 `(len(hashes),)`.

    Splits and lineages both use this function, so that a lineage recognises no copy that a split leaves on two sides.

    Args:
        hashes: the hashes to look up, in any of the eight orientations.
        known: the hashes among which to search.
        limit: number of bits that may differ.
        margin: by how much the limits of correlation of `agepipe.model.recognition.recognised` are lowered.
    """
    found = np.full(len(hashes), -1, dtype=np.int64)
    for turned in oriented(hashes):
        left = np.flatnonzero(found < 0)
        found[left] = near([turned[row] for row in left], known, limit)
    left = np.flatnonzero(found < 0)
    remaining = sketches(hashes)
    found[left] = recognised([remaining[row] for row in left], sketches(known), margin)
    return found
