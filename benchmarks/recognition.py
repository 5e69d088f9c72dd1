"""How far a photograph that a model has seen is recognised again: changed copies of real chips, by kind of change.

    python -m benchmarks.recognition UTKFACE            # a folder or archives; two minutes on two cores
    python -m benchmarks.recognition UTKFACE --pairs    # all different photographs against each other, some ten minutes

`by bits` is the share of the copies that bundles of earlier versions recognise; `all` that of current bundles.
`others` counts copies that are taken for another photograph than their own and its group of near duplicates. `--pairs`
lists each pair of photographs that no group joins and that counts as one, to be looked at.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.data import archives, duplicates
from agepipe.model import phash
from agepipe.model.imaging import SUFFIXES, decode, fit
from agepipe.model.lineage import LIMIT
from agepipe.model.recognition import recognised

Pixels = NDArray[np.uint8]
STORED = 108
"""Side at which the laptop preset stores photographs, px."""


def saved(chip: Pixels, quality: int) -> Pixels:
    """The chip as a JPEG of that quality."""
    data = cv2.imencode(".jpg", chip, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def cropped(chip: Pixels, share: float) -> Pixels:
    """The chip without that share of its side on each of the four sides."""
    rim = round(len(chip) * share)
    return chip[rim : len(chip) - rim, rim : len(chip) - rim]


def cut_off(chip: Pixels, share: float) -> Pixels:
    """The chip without that share of its side on the left and above."""
    return chip[round(len(chip) * share) :, round(len(chip) * share) :]


def turned(chip: Pixels, degrees: float) -> Pixels:
    """The chip turned about its centre, black where nothing is known."""
    centre = ((len(chip) - 1) / 2,) * 2
    matrix = cv2.getRotationMatrix2D(centre, degrees, 1)
    return np.asarray(cv2.warpAffine(chip, matrix, (len(chip), len(chip))), dtype=np.uint8)


def bordered(chip: Pixels, share: float) -> Pixels:
    """The chip with a white border."""
    rim = round(len(chip) * share)
    white = (255, 255, 255)
    return np.asarray(cv2.copyMakeBorder(chip, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=white), dtype=np.uint8)


def marked(chip: Pixels) -> Pixels:
    """The chip with half transparent letters across it."""
    letters = cv2.putText(chip.copy(), "SAMPLE", (20, 120), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 3)
    return np.asarray(cv2.addWeighted(chip, 0.4, letters, 0.6, 0), dtype=np.uint8)


def equalised(chip: Pixels) -> Pixels:
    """The chip with the histogram of its luma made even."""
    found = cv2.cvtColor(chip, cv2.COLOR_RGB2YCrCb)
    found[..., 0] = cv2.equalizeHist(np.ascontiguousarray(found[..., 0]))
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


def noisy(chip: Pixels) -> Pixels:
    """The chip with noise of 10 of 255."""
    noise = np.random.default_rng(0).normal(0, 10, chip.shape)
    return np.clip(chip + noise, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "saved as JPEG of quality 10": lambda chip: saved(chip, 10),
    "resized to 48 px": lambda chip: np.asarray(cv2.resize(chip, (48, 48), interpolation=cv2.INTER_AREA), np.uint8),
    "blurred (sigma 2 px)": lambda chip: np.asarray(cv2.GaussianBlur(chip, (0, 0), 2.0), np.uint8),
    "noise of 10 of 255": noisy,
    "grey": lambda chip: np.repeat(chip.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
    "mirrored": lambda chip: chip[:, ::-1],
    "upside down": lambda chip: chip[::-1, ::-1],
    "turned by 90°": lambda chip: chip.transpose(1, 0, 2)[::-1],
    **{f"cropped by {share:.0%}": partial(cropped, share=share)
       for share in (0.01, 0.03, 0.05, 0.08, 0.1)},
    **{f"{share:.0%} cut off on two sides": partial(cut_off, share=share)
       for share in (0.02, 0.05, 0.1)},
    **{f"turned by {angle}°": partial(turned, degrees=angle) for angle in (2, 5, 10, 15)},
    "mirrored, cropped by 5 %, JPEG 50": lambda chip: saved(np.ascontiguousarray(cropped(chip, 0.05)[:, ::-1]), 50),
    "turned by 5°, cropped by 5 %": lambda chip: cropped(turned(chip, 5), 0.05),
    **{f"border of {share:.0%}": partial(bordered, share=share) for share in (0.02, 0.05, 0.1)},
    "watermark across it": marked,
    "histogram equalised": equalised,
}  # fmt: skip
"""What is done to a chip of 200 px."""


def chips_of(locations: list[Path]) -> Iterator[Pixels]:
    """All photographs at 200 px."""
    for location in locations:
        for entry in archives.entries(location):
            if entry.name.lower().endswith(SUFFIXES):
                yield fit(decode(entry.read()), 200)


def shares(seen: list[bytes], groups: list[str], own: list[int], copies: list[bytes]) -> tuple[float, float, int]:
    """Shares of the copies recognised by the bits as they are and in all, and how many are taken for others.

    Args:
        seen: looks of all photographs.
        groups: their groups.
        own: which photograph each copy is made of.
        copies: looks of the copies.
    """
    by_bits = phash.near(copies, seen, LIMIT)
    found = by_bits.copy()
    for looks in phash.oriented(copies):
        found = np.where(found < 0, phash.near(looks, seen, LIMIT), found)
    left = np.flatnonzero(found < 0)
    again = phash.sketches(copies)
    found[left] = recognised([again[row] for row in left], phash.sketches(seen))
    right = [at >= 0 and groups[at] == groups[me] for at, me in zip(found.tolist(), own, strict=True)]
    return float((by_bits >= 0).mean()), float(np.mean(right)), int((found >= 0).sum() - sum(right))


def main() -> None:
    """Print the table, or the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--pairs", action="store_true")
    asked = parser.parse_args()
    chips = np.stack(list(chips_of(asked.data)))
    stored = np.stack([fit(chip, STORED) for chip in chips])
    seen = phash.perceptual_hashes(stored)
    names = [f"{row:08d}" for row in range(len(chips))]
    groups = duplicates.groups(duplicates.thumbnails(stored), names, 0.975)
    if asked.pairs:
        known = phash.sketches(seen)
        for row in range(len(known)):
            others = [b"" if groups[at] == groups[row] else one for at, one in enumerate(known)]
            (place,) = recognised(known[row : row + 1], others).tolist()
            if place >= 0:
                print(f"{row} {place}", flush=True)
        return
    picked = np.random.default_rng(0).choice(len(chips), asked.copies, replace=False).tolist()
    print("| change | by bits | all | others |\n|---|---|---|---|")
    for name, change in CHANGES.items():
        copies = phash.perceptual_hashes(
            np.stack([fit(np.ascontiguousarray(change(chips[at])), STORED) for at in picked])
        )
        bits, both, wrong = shares(seen, groups, picked, copies)
        print(f"| {name} | {bits:.1%} | {both:.1%} | {wrong} |", flush=True)


if __name__ == "__main__":
    main()
