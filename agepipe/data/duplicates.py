"""Which photographs are the same one: exact copies by digest, near copies by appearance, and copies across data sets.

Inside one data set, `groups` joins near duplicates, mirrored ones included: on aligned face chips a correlation of
24×24 grey thumbnails above 0.975 always was the same photograph, looked at by eye, and so was one above 0.969 with a
mirrored thumbnail (30 pairs of UTKFace; the first wrong pair has 0.967). Across data sets and years, `looks` gives each
picture 256 bits of appearance that a model can carry along, and `near` finds re-encoded copies by them. Behind the bits
a look has a sketch of the picture, by which `agepipe.model.recognition` finds copies that are cropped or turned.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
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


def tied(looks_: Sequence[bytes], limit: int = COPY_BITS) -> NDArray[np.int64]:
    """Components of looks that a chain of pairs within `limit` bits links, int64 `(n,)`; equal numbers are tied.

    A pair may also be that close where one of the two is mirrored. The cost does not grow with the square of the rows,
    and what is tied does not depend on their order.
    """
    if len(looks_) == 0:
        return np.empty(0, dtype=np.int64)
    unique, kind = np.unique(words(looks_), axis=1, return_inverse=True)
    return alike(unique, words([mirror()])[:, 0], limit)[kind.reshape(-1)]
