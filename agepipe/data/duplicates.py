"""Groups of duplicates: exact copies by digest, near duplicates by the correlation of thumbnails or perceptual hashes.

Inside one data set, `groups` joins near duplicates, including mirrored ones. On aligned face chips, inspected by eye,
every pair whose 24×24 grey thumbnails correlate above 0.975 was one photograph, and so was every pair above 0.969 with
one thumbnail mirrored (30 pairs of UTKFace; the first wrong pair has 0.967). `linked` joins photographs by their
perceptual hashes (`agepipe.model.phash`).
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.data.near_duplicates import alike, joined, merge
from agepipe.model.phash import COPY_BITS, TALL, halved, luma, mirror, shrunk, words

SIDE = 24
"""Side of a thumbnail, px."""


def thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey thumbnails, uint8 `(n, 24, 24)`, of RGB or grey pictures, uint8 `(n, size, size[, 3])`."""
    found = np.empty((len(pixels), SIDE, SIDE), dtype=np.uint8)
    for start in range(0, len(pixels), TALL):
        found[start : start + TALL] = shrunk(halved(luma(pixels[start : start + TALL])), SIDE)
    return found


def groups(thumbs: NDArray[np.uint8], digests: Sequence[str], threshold: float) -> list[str]:
    """The name of each row's group of duplicates: the smallest content digest in it.

    Rows share a group if their digests or thumbnails are equal, or if a chain of thumbnails links them whose
    correlation, direct or mirrored, is above the threshold. The result does not depend on the order of the rows.

    Args:
        thumbs: uint8 `(n, side, side)`.
        digests: content digests of the files, `n` of them.
        threshold: Pearson correlation above which two thumbnails are one photograph.
    """
    first = firsts(thumbs, pl.Series(digests, dtype=pl.String), threshold)
    return [digests[row] for row in first.tolist()]


def firsts(
    thumbs: NDArray[np.uint8], digests: pl.Series, threshold: float, scratch: Path | None = None
) -> NDArray[np.int64]:
    """As `groups`, but the group of each row is a row in it with the smallest digest, int64 `(n,)`.

    Args:
        thumbs: uint8 `(n, side, side)`, which may be memory-mapped.
        digests: content digests of the files, `n` of them.
        threshold: Pearson correlation above which two thumbnails are one photograph.
        scratch: a folder for intermediate results of about 650 bytes a row; None keeps them in memory.
    """
    if len(thumbs) != len(digests):
        raise ValueError(f"groups: {len(thumbs)} thumbnails, but {len(digests)} digests")
    if len(digests) == 0:
        return np.empty(0, dtype=np.int64)
    hashed = (blake2b(thumb.tobytes(), digest_size=16).digest() for thumb in thumbs)
    keys = np.fromiter(hashed, dtype="S16", count=len(thumbs))
    _, distinct, kind = np.unique(keys, return_index=True, return_inverse=True)
    labels = joined(thumbs, threshold, distinct, scratch)[kind]
    rank = (digests.rank("dense").to_numpy() - 1).astype(np.int64)
    return _smallest(labels, rank)


def _smallest(labels: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join rows that share a digest, and name each component by a row with its smallest digest (lowest rank)."""
    names = int(rank.max()) + 1
    component = np.arange(names + len(labels), dtype=np.int64)
    rows = labels + names  # digests come first, so that the smallest member of a component is its lowest rank
    merge(component, rows, rank)
    row = np.empty(names, dtype=np.int64)
    row[rank] = np.arange(len(rank))
    return row[component[rank]]


def linked(hashes: Sequence[bytes]) -> NDArray[np.int64]:
    """Connected components of perceptual hashes, int64 `(n,)`: rows with equal numbers belong together.

    Two hashes are joined if they differ in at most `COPY_BITS`, directly or with one picture mirrored. The cost does
    not grow with the square of the rows, and the components do not depend on their order.
    """
    if len(hashes) == 0:
        return np.empty(0, dtype=np.int64)
    unique, kind = np.unique(words(hashes), axis=1, return_inverse=True)
    return alike(unique, words([mirror()])[:, 0], COPY_BITS)[kind.reshape(-1)]
