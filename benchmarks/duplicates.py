"""How the search for near duplicates scales: seconds and share of planted copies found, up to a million thumbnails.

    python -m benchmarks.duplicates                 # 10,000 to 300,000 rows, some two minutes on one core
    python -m benchmarks.duplicates --rows 1000000  # the largest, under 4 GB

The thumbnails are drawn: a mean face that all share, twenty directions in which faces vary most, finer detail, and for
each planted copy noise that brings its correlation with the original down to between 0.977 and 0.999. `found` is the
share of planted pairs that end in one group; `others` are rows joined besides, drawn faces that correlate by chance.
"""

import argparse
import math
import resource
import time
from hashlib import blake2b

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.data import near_duplicates
from agepipe.data.duplicates import SIDE, groups

COPIES = 0.04
"""Share of the rows that are copies of another row, as in UTKFace."""
THRESHOLD = 0.975
BLOCK = 20_000


def drawn(count: int, seed: int) -> NDArray[np.uint8]:
    """Thumbnails of `count` different faces, uint8 `(count, SIDE, SIDE)`."""
    random = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    mean = _waves(shared, 1, 5, 34.0)[0]
    modes = np.concatenate([_waves(shared, 8, 3, 1.0), _waves(shared, 12, 5, 1.0)])
    strength = 16.0 / np.sqrt(1 + np.arange(len(modes)))
    found = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        own = np.tensordot(random.normal(0, 1, (rows, len(modes))) * strength, modes, axes=1)
        face = 128 + mean + own + _waves(random, rows, 9, 9.0)
        found[start : start + rows] = np.clip(face + random.normal(0, 1.5, face.shape), 0, 255)
    return found


def _waves(random: np.random.Generator, count: int, cells: int, strength: float) -> NDArray[np.float64]:
    """Smooth random pictures of `cells` × `cells` patches, float64 `(count, SIDE, SIDE)`."""
    coarse = random.normal(0, strength, (count, cells, cells))
    return np.array([cv2.resize(patch, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for patch in coarse])


def planted(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Thumbnails with copies among them, and the rows of each original and its copy whose correlation is enough."""
    copies = int(count * COPIES)
    random = np.random.default_rng(count)
    thumbs = np.concatenate([drawn(count - copies, count), np.empty((copies, SIDE, SIDE), dtype=np.uint8)])
    original = random.choice(count - copies, copies, replace=False)
    copy = np.arange(count - copies, count)
    for start in range(0, copies, BLOCK):
        face = thumbs[original[start : start + BLOCK]].astype(np.float32)
        wanted = random.uniform(0.977, 0.999, (len(face), 1, 1))
        sigma = face.std(axis=(1, 2), keepdims=True) * np.sqrt(1 / np.square(wanted) - 1)
        thumbs[copy[start : start + BLOCK]] = np.clip(face + random.normal(0, 1, face.shape) * sigma, 0, 255)
    real = near_duplicates.correlation(thumbs.__getitem__, original, copy) > THRESHOLD
    order = random.permutation(count)
    place = np.argsort(order)
    return thumbs[order], place[original[real]], place[copy[real]]


def measured(count: int) -> tuple[float, float, int, int]:
    """Seconds, share of planted pairs found, number of those pairs, and rows joined that were not planted."""
    thumbs, original, copy = planted(count)
    digests = [blake2b(row.to_bytes(8, "little"), digest_size=32).hexdigest() for row in range(count)]
    start = time.perf_counter()
    found = np.array(groups(thumbs, digests, THRESHOLD))
    seconds = time.perf_counter() - start
    share = float((found[original] == found[copy]).mean())
    return seconds, share, len(original), count - len(np.unique(found)) - int(share * len(original) + 0.5)


def main() -> None:
    """Print the table and the exponent of the growth between one size and the next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    cv2.setNumThreads(1)
    print("     rows orders  seconds  µs/row exponent  planted    found others peak GB")
    before: tuple[int, float] | None = None
    for count in parser.parse_args().rows:
        seconds, share, pairs, others = measured(count)
        power = f"{math.log(seconds / before[1]) / math.log(count / before[0]):.2f}" if before else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{count:>9,} {near_duplicates.tables(count):>6} {seconds:>8.1f} {seconds / count * 1e6:>7.1f} {power:>8} "
            f"{pairs:>8,} {share:>8.2%} {others:>6} {peak:>7.2f}",
            flush=True,
        )
        before = (count, seconds)


if __name__ == "__main__":
    main()
