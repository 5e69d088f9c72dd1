"""Finds pairs of nearly equal pictures among very many, at a cost that does not grow with the square of the rows.

Sorted sketches: every thumbnail becomes a string of bits, the signs of random projections of its low frequencies
(Charikar, "Similarity estimation techniques from rounding algorithms", 2002). The strings are sorted, and each is
compared with the few that follow it; other random projections give other orders, and a pair of copies is adjacent in
one of them. A bucket of fixed length would collapse where all pictures look alike; a sorted list cannot: however the
pictures are distributed, a row meets `WINDOW` others in each order. Candidates are verified by their exact correlation.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

WINDOW = 12
"""How many followers in a sorted order each row is compared with."""
BAND = 9
"""Low frequencies kept along each axis: `BAND * BAND` features, a constant in the place of the mean."""
FLOOR = 4.0
"""A frequency counts in full only where it varies by more than so many times the noise between copies."""
SKETCH_LIMIT = 60
"""Candidates whose 256-bit sketches differ in more bits are not verified: copies were never seen to differ in more than
31, unrelated faces differ in about 117."""
FEW = 2000
"""Up to so many rows every candidate is verified: the scale of the features is not to be trusted there."""
BLOCK = 8192
"""Rows handled at a time, so that memory stays bounded."""

Codes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Verify = Callable[[Indices, Indices], NDArray[np.bool_]]
"""Which pairs of rows, `(pairs,)` and `(pairs,)`, are copies of each other."""


def joined(thumbs: NDArray[np.uint8], threshold: float) -> Indices:
    """Connected components of the thumbnails whose correlation, as they are or mirrored, is above the threshold.

    Args:
        thumbs: uint8 `(n, side, side)`, distinct and in an order that does not depend on the files' order.
        threshold: Pearson correlation above which two thumbnails are joined.

    Returns:
        int64 `(n,)`: the smallest row of each row's component.
    """
    count = len(thumbs)
    rows = np.arange(count, dtype=np.int64)
    if count < 2:
        return rows
    labels = np.concatenate([rows, rows])  # behind each picture lies its mirror image, in the same component
    thumbs = np.concatenate([thumbs, thumbs[:, :, ::-1]])
    flat = thumbs.reshape(len(thumbs), -1)
    noise = 2 * (1 - threshold)
    features, spread = _features(thumbs, noise)

    def verify(left: Indices, right: Indices) -> NDArray[np.bool_]:
        same = _within(features, spread, noise, left, right)
        same[same] = correlation(flat, left[same], right[same]) > threshold
        return same

    random = np.random.default_rng(0)
    sketch = np.stack([_code(features, random) for _ in range(4)])
    limit = SKETCH_LIMIT if len(thumbs) > FEW else 64 * len(sketch)
    for _ in range(tables(len(thumbs))):
        order = np.argsort(_code(features, random), kind="stable").astype(np.int64)
        _join_neighbours(labels, order, sketch, limit, verify)
    return labels[:count]


def alike(words: Codes, mirror: Codes, limit: int) -> Indices:
    """Connected components of hashes that differ, as they are or mirrored, in at most `limit` bits.

    Args:
        words: uint64 `(words, n)`, distinct and in an order that does not depend on the files' order.
        mirror: uint64 `(words,)`: the bits that change where a picture is mirrored.
        limit: Hamming distance up to which two hashes are joined.

    Returns:
        int64 `(n,)`: the smallest row of each row's component.
    """
    count = words.shape[1]
    rows = np.arange(count, dtype=np.int64)
    labels = np.concatenate([rows, rows])
    words = np.concatenate([words, words ^ mirror[:, None]], axis=1)
    random = np.random.default_rng(0)
    bits = np.unpackbits(np.ascontiguousarray(words.T).view(np.uint8), axis=1)
    for _ in range(tables(len(labels))):
        chosen = np.ascontiguousarray(bits[:, random.permutation(bits.shape[1])[:64]])
        order = np.argsort(_packed(chosen), kind="stable").astype(np.int64)
        _join_neighbours(labels, order, words, limit, lambda left, _: np.ones(len(left), dtype=np.bool_))
    return labels[:count]


def tables(count: int) -> int:
    """How many sorted orders are used for `count` rows: grows with their logarithm, for the same share found."""
    return 8 + int(1.5 * np.log2(max(count, 2)))


def _features(thumbs: NDArray[np.uint8], noise: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low frequencies of the normalised thumbnails, scaled so that all count alike.

    Each is centred and divided by its deviation, but not where that is below what copies may differ by: there, and
    where all pictures are copies of one, only noise would be left. What such frequencies lack is made up by a
    constant, which gives pictures that differ by noise alone the same code.

    Args:
        thumbs: uint8 `(n, side, side)`.
        noise: largest squared distance between two normalised copies.

    Returns:
        The features, float32 `(n, BAND * BAND)`, and what each was divided by, float32 `(BAND * BAND,)`.
    """
    side = thumbs.shape[1]
    grid = (2 * np.arange(side) + 1) * np.arange(BAND)[:, None]
    cosines = np.cos(np.pi * grid / (2 * side)).astype(np.float32)
    basis = np.einsum("ki,lj->ijkl", cosines, cosines).reshape(side * side, -1)[:, 1:]
    basis /= np.linalg.norm(basis, axis=0)
    found = np.empty((len(thumbs), BAND * BAND), dtype=np.float32)
    for start in range(0, len(thumbs), BLOCK):
        block = thumbs[start : start + BLOCK].reshape(-1, side * side).astype(np.float32)
        block -= block.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        found[start : start + BLOCK, 1:] = block @ basis / np.maximum(norm, 1e-6)
    varying = found[:, 1:]
    varying -= varying.mean(axis=0, dtype=np.float64)
    variance = np.square(varying).mean(axis=0, dtype=np.float64)
    floor = FLOOR * max(noise, 1e-3) / side**2
    spread = np.sqrt(variance + floor).astype(np.float32)
    varying /= spread
    found[:, 0] = np.sqrt((floor / (variance + floor)).sum())
    return found, np.append(np.float32(0), spread)


def _within(
    features: NDArray[np.float32], spread: NDArray[np.float32], noise: float, left: Indices, right: Indices
) -> NDArray[np.bool_]:
    """Whether the low frequencies of pairs allow them to be copies, bool `(pairs,)`: a quick look that refuses no copy.

    The squared distance of two normalised pictures is 2 - 2 × correlation, and that of a part of their frequencies,
    in an orthonormal basis, cannot be larger.
    """
    found = np.empty(len(left), dtype=np.bool_)
    for start in range(0, len(left), BLOCK):
        apart = features[left[start : start + BLOCK]]
        apart -= features[right[start : start + BLOCK]]
        apart *= spread
        found[start : start + BLOCK] = np.einsum("ij,ij->i", apart, apart) <= noise + 1e-4
    return found


def _code(features: NDArray[np.float32], random: np.random.Generator) -> Codes:
    """Signs of 64 random projections as one number, uint64 `(n,)`; the first projection is the highest bit."""
    planes = random.standard_normal((features.shape[1], 64)).astype(np.float32)
    codes = np.empty(len(features), dtype=np.uint64)
    for start in range(0, len(features), BLOCK):
        signs = features[start : start + BLOCK] @ planes > 0
        codes[start : start + BLOCK] = _packed(signs)
    return codes


def _packed(bits: NDArray[np.bool_] | NDArray[np.uint8]) -> Codes:
    """64 bits a row, `(n, 64)`, as one number; the first is the highest bit, so that it decides the order first."""
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _join_neighbours(labels: Indices, order: Indices, sketch: Codes, limit: int, verify: Verify) -> None:
    """Compare each row with its followers in one order and merge, in place, the labels of the copies among them."""
    ordered = sketch[:, order]
    for step in range(1, min(WINDOW, len(order) - 1) + 1):
        differing = np.zeros(len(order) - step, dtype=np.uint16)
        for word in ordered:
            differing += np.bitwise_count(word[:-step] ^ word[step:])
        at = np.flatnonzero(differing <= limit)
        left, right = order[at], order[at + step]
        apart = labels[left] != labels[right]  # what is joined already costs no second look
        left, right = left[apart], right[apart]
        same = verify(left, right)
        merge(labels, left[same], right[same])


def correlation(flat: NDArray[np.uint8], left: Indices, right: Indices) -> NDArray[np.float64]:
    """Pearson correlation of pairs of rows of `flat` `(n, pixels)`, float64 `(pairs,)`; 0 where a row is constant.

    The sums are taken in whole numbers, so that the result does not depend on the order of anything.
    """
    found = np.zeros(len(left), dtype=np.float64)
    pixels = flat.shape[1]
    for start in range(0, len(left), BLOCK):
        a = flat[left[start : start + BLOCK]].astype(np.int32)
        b = flat[right[start : start + BLOCK]].astype(np.int32)
        ab, aa, bb = (np.einsum("ij,ij->i", x, y).astype(np.int64) for x, y in ((a, b), (a, a), (b, b)))
        sa, sb = a.sum(axis=1, dtype=np.int64), b.sum(axis=1, dtype=np.int64)
        spread = np.sqrt((pixels * aa - sa * sa).astype(np.float64)) * np.sqrt((pixels * bb - sb * sb).astype(float))
        covariance = (pixels * ab - sa * sb).astype(np.float64)
        np.divide(covariance, spread, out=found[start : start + BLOCK], where=spread > 0)
    return found


def merge(labels: Indices, left: Indices, right: Indices) -> None:
    """Join the components of `left[i]` and `right[i]` for every i, in place; the smaller label wins.

    A vectorised union-find: hook each root onto the smallest root that it is joined to, then shorten all paths, until
    nothing changes.
    """
    while len(left):
        a, b = labels[left], labels[right]
        apart = a != b
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := labels[labels], labels):
            labels[:] = shorter
