"""Which photographs are the same one: exact copies by digest, near copies by appearance, and copies across data sets.

Inside one data set, `groups` joins near duplicates, mirrored ones included: on aligned face chips a correlation of
24×24 grey thumbnails above 0.975 always was the same photograph, looked at by eye, and so was one above 0.969 with a
mirrored thumbnail (30 pairs of UTKFace; the first wrong pair has 0.967). Across data sets and years, `looks` gives each
picture 256 bits of appearance that a model can carry along, and `near` finds re-encoded copies by them. Behind the bits
a look has a sketch of the picture, by which `agepipe.data.recognise` finds copies that are cropped or turned.
"""

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.data.neighbours import alike, joined, merge
from agepipe.data.recognise import sketched

SIDE = 24
"""Side of a thumbnail, px."""
BITS = 256
"""Bits of a look."""
LOOK_SIDE = 36
"""Side of the grey picture whose frequencies a look is made of, px."""
COPY_BITS = 24
"""Looks that differ in at most so many bits are those of one photograph.

Measured on UTKFace chips stored at 108 px. 2,666 chips saved again as JPEG of quality 50, resized to 80 % and back, or
blurred (sigma 1 px), and all three in a row: the distance is at most 9, so none is missed (quality 20: 16; stored at
64, 72 or 144 px: 12; grey: 4; 10 % more contrast and brighter: 1 missed). Of the 227 million pairs that `groups` does
not join, 5 lie within 24 bits, and by eye each of them is one photograph cropped twice, as are the 5 others up to 31
bits that were looked at. A copy cropped by 1 % of its side is missed in 15 % of the cases, by 2 % in nearly all.
"""
BLOCK_PAIRS = 1 << 20
"""Pairs of looks compared at a time, so that the work stays in the processor's cache."""
TALL = 256
"""Pictures that are shrunk at a time."""


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey pictures, uint8 `(n, size, size)`, of RGB ones, uint8 `(n, size, size, 3)`; grey ones as they are."""
    if pixels.ndim == 3 or len(pixels) == 0:
        return pixels.reshape(pixels.shape[:3])
    count, size = pixels.shape[:2]
    grey = cv2.cvtColor(pixels.reshape(count * size, size, 3), cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, dtype=np.uint8).reshape(count, size, size)


def thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey thumbnails, uint8 `(n, 24, 24)`, of RGB or grey pictures, uint8 `(n, size, size[, 3])`."""
    found = np.empty((len(pixels), SIDE, SIDE), dtype=np.uint8)
    for start in range(0, len(pixels), TALL):
        found[start : start + TALL] = _shrunk(halved(luma(pixels[start : start + TALL])), SIDE)
    return found


def halved(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pictures, uint8 `(n, size, size)`, shrunk by halves as far as `thumbnails` and `looks` allow.

    Both do it by themselves, which is far quicker than shrinking at once; for both, it needs to be done only once.
    """
    while grey.shape[1] < LOOK_SIDE:
        grey = grey.repeat(2, axis=1).repeat(2, axis=2)  # enlarging a tall picture would mix its parts
    while grey.shape[1] % 2 == 0 and grey.shape[1] >= 2 * LOOK_SIDE:
        grey = _shrunk(grey, grey.shape[1] // 2)
    return grey


def _shrunk(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Average uint8 `(n, size, size)` into uint8 `(n, side, side)`.

    They are shrunk as one tall picture: that is quick, and nothing mixes, since the borders between pictures fall
    between output rows.
    """
    count, size = grey.shape[:2]
    tall = cv2.resize(grey.reshape(count * size, size), (side, count * side), interpolation=cv2.INTER_AREA)
    return np.asarray(tall, dtype=np.uint8).reshape(count, side, side)


def groups(thumbs: NDArray[np.uint8], digests: Sequence[str], threshold: float) -> list[str]:
    """The name of each row's group of duplicates: the smallest content digest in it.

    Rows share a group when their digests or their thumbnails are equal, or when a chain of thumbnails with a
    correlation above the threshold, as they are or mirrored, links them. The answer does not depend on the order of
    the rows.

    Args:
        thumbs: uint8 `(n, side, side)`.
        digests: content digests of the files, `n` of them.
        threshold: Pearson correlation above which two thumbnails are one photograph.
    """
    if len(thumbs) != len(digests):
        raise ValueError(f"groups: {len(thumbs)} thumbnails, but {len(digests)} digests")
    if len(digests) == 0:
        return []
    keys = np.array([blake2b(thumb.tobytes(), digest_size=16).digest() for thumb in thumbs])
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    names, rank = np.unique(np.array(digests, dtype=np.bytes_), return_inverse=True)
    labels = joined(thumbs[first], threshold)[kind]
    return _smallest(labels, rank, names)


def _smallest(labels: NDArray[np.int64], rank: NDArray[np.int64], names: NDArray[np.bytes_]) -> list[str]:
    """Join what shares a digest, and name each component by the smallest digest (lowest rank) in it."""
    component = np.arange(len(labels) + len(names), dtype=np.int64)
    rows = labels + len(names)  # digests come first, so that the smallest member of a component is its lowest rank
    merge(component, rows, rank)
    return [name.decode() for name in names[component[rank]].tolist()]


def looks(pixels: NDArray[np.uint8]) -> list[bytes]:
    """Appearance of each RGB or grey picture of uint8 `(n, size, size[, 3])`: 256 bits, then a sketch.

    The bits are the signs of the 256 lowest frequencies of the small grey picture (a perceptual hash of the DCT kind),
    the mean left out: brightness, contrast, size, colour and compression hardly change them. The sketch is that of
    `recognise.sketched`.
    """
    waves, rows, columns = _lowest()
    small = np.empty((len(pixels), LOOK_SIDE, LOOK_SIDE), dtype=np.float32)
    for start in range(0, len(pixels), TALL):
        small[start : start + TALL] = _shrunk(halved(luma(pixels[start : start + TALL])), LOOK_SIDE)
    frequencies = waves @ small @ waves.T
    bits = np.packbits(frequencies[:, rows, columns] > 0, axis=1)
    return [one.tobytes() + sketch for one, sketch in zip(bits, sketched(frequencies), strict=True)]


def sketches(looks_: Sequence[bytes]) -> list[bytes]:
    """The sketch of each look; empty for a look of an earlier version, which has its bits alone."""
    return [look[BITS // 8 :] for look in looks_]


@cache
def _lowest() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The waves of a DCT, and rows and columns of its `BITS` lowest frequencies by distance from the mean, left out."""
    row, column = np.indices((LOOK_SIDE, LOOK_SIDE)).reshape(2, -1)
    order = np.lexsort((row, row + column))[1 : BITS + 1]
    rows, columns = row[order], column[order]
    waves = np.asarray(cv2.dct(np.eye(LOOK_SIDE, dtype=np.float32), flags=cv2.DCT_ROWS), dtype=np.float32).T
    return waves[: max(rows.max(), columns.max()) + 1], rows.astype(np.int64), columns.astype(np.int64)


def tied(looks_: Sequence[bytes], limit: int = COPY_BITS) -> NDArray[np.int64]:
    """Components of looks that a chain of pairs within `limit` bits links, int64 `(n,)`; equal numbers are tied.

    A pair may also be that close where one of the two is mirrored. The cost does not grow with the square of the rows,
    and what is tied does not depend on their order.
    """
    if len(looks_) == 0:
        return np.empty(0, dtype=np.int64)
    words, kind = np.unique(_words(looks_), axis=1, return_inverse=True)
    return alike(words, _words([_mirror()])[:, 0], limit)[kind.reshape(-1)]


def oriented(looks_: Sequence[bytes]) -> list[list[bytes]]:
    """The looks of the pictures in all eight orientations: as they are, mirrored, and both turned by quarters.

    They follow from the bits alone, up to four of 256: a turn by a quarter exchanges rows and columns, and of the
    highest frequencies not all have their counterpart among the bits.
    """
    bits = np.unpackbits(_words(looks_).T.copy().view(np.uint8), axis=1)
    return [[row.tobytes() for row in np.packbits(bits[:, order] ^ odd, axis=1)] for order, odd in _orientations()]


@cache
def _orientations() -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """For each orientation which bit comes from where, and which bits change; as it is first, mirrored second."""
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


def _mirror() -> bytes:
    """The bits of a look that change where a picture is mirrored."""
    return np.packbits(_orientations()[1][1]).tobytes()


def near(looks_a: Sequence[bytes], looks_b: Sequence[bytes], limit: int = COPY_BITS) -> NDArray[np.int64]:
    """For each look of `a` the position in `b` of the nearest look within `limit` bits, or -1; int64 `(len(a),)`.

    Of equally near ones the first is taken.
    """
    a, b = _words(looks_a), _words(looks_b)
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


def _words(looks_: Sequence[bytes]) -> NDArray[np.uint64]:
    """The bits of looks as uint64 `(4, n)`."""
    return (
        np.frombuffer(b"".join(look[: BITS // 8] for look in looks_), dtype=np.uint64).reshape(-1, BITS // 64).T.copy()
    )
