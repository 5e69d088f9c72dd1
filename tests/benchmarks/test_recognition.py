"""The table of what is recognised is made of real copies, and counts what is taken for another photograph."""

import numpy as np

from agepipe.model.phash import perceptual_hashes
from benchmarks.recognition import CHANGES, shares


def test_shares_tell_own_photographs_from_others() -> None:
    random = np.random.default_rng(0)
    pictures = (
        random.integers(0, 256, (6, 9, 9, 3), dtype=np.uint8).repeat(24, axis=1).repeat(24, axis=2)[:, :200, :200]
    )
    seen = perceptual_hashes(pictures)
    own = list(range(6))
    assert shares(seen, [str(row) for row in own], own, seen) == (1.0, 1.0, 0)
    assert shares(seen, [str(row) for row in own], own[::-1], seen) == (1.0, 0.0, 6)
    mirrored = perceptual_hashes(np.stack([np.ascontiguousarray(CHANGES["mirrored"](picture)) for picture in pictures]))
    assert shares(seen, [str(row) for row in own], own, mirrored) == (0.0, 1.0, 0)


def test_each_change_leaves_a_square_picture() -> None:
    chip = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for change in CHANGES.values():
        changed = change(chip)
        assert changed.dtype == np.uint8 and changed.shape[0] == changed.shape[1] and changed.shape[2] == 3
