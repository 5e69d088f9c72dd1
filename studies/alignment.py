"""What alignment is worth: the error in years on chips as they are, and found again in scenes, by YuNet and by Haar.

    python -m studies.alignment UTKFACE.tar --model BUNDLE --detector face_detection_yunet_2026may.onnx

Only chips that the model has not seen are taken. `moved` is by how many years the answer differs from the answer on
the chip itself, as the mean and the median of the absolute difference; `error` is the mean absolute error.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.data import archives
from agepipe.model.bundle_files import read_lineage
from agepipe.model.imaging import Image, decode, fit
from agepipe.model.predictor import Predictor
from agepipe.serving.align import align
from agepipe.serving.camera import DETECTION_SIDE
from agepipe.serving.detect.face import Face
from agepipe.serving.detect.haar import Haar
from agepipe.serving.detect.yunet import YuNet, checked
from benchmarks.scenes import anywhere, boxed

SIDES = (100, 160, 250, 320)
"""Sides of the chips in the scenes of 640×480 px."""


def unseen(locations: Sequence[Path], bundle: Path) -> Iterator[tuple[Image, int]]:
    """Chips that the model has not seen, with their ages."""
    seen = set(read_lineage(bundle)["digest"])
    for location in locations:
        for entry in archives.entries(location):
            data = entry.read()
            if hashlib.sha256(data).hexdigest() not in seen:
                yield decode(data), int(entry.name.partition("_")[0])


class Bench:
    """The chips, what the model says of them as they are, and the table."""

    def __init__(self, predictor: Predictor, chips: Sequence[Image], ages: NDArray[np.integer]) -> None:
        self._predictor, self._ages = predictor, ages
        self._plain = self._years(chips)

    def _years(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        size = self._predictor.card.size
        return self._predictor.predict(np.stack([fit(picture, size) for picture in pictures])).years

    def line(self, name: str, pictures: Sequence[Image | None]) -> None:
        """Print what becomes of the answers when the chips look like this; None where no face was found."""
        found = [row for row, picture in enumerate(pictures) if picture is not None]
        years = self._years([picture for picture in pictures if picture is not None])
        error = np.abs(years - self._ages[found]).mean()
        plain = np.abs(self._plain[found] - self._ages[found]).mean()
        moved = np.abs(years - self._plain[found])
        print(
            f"{name:<30} {len(found) / len(pictures):>7.1%} {error:>7.2f} {error - plain:>+8.2f} "
            f"{moved.mean():>7.2f} {np.median(moved):>7.2f}",
            flush=True,
        )


def cut(scenes: Sequence[Image], faces: Sequence[list[Face]], by: Callable[[Image, Face], Image]) -> list[Image | None]:
    """The largest face of each scene, cut out."""
    return [by(scene, found[0]) if found else None for scene, found in zip(scenes, faces, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="archives or folders of UTKFace's chips")
    parser.add_argument("--model", type=Path, required=True, help="folder of a bundle")
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = list(unseen(given.data, given.model))
    random = np.random.default_rng(1)
    chosen = [pairs[row] for row in random.permutation(len(pairs))[: given.count]]
    chips = [chip for chip, _ in chosen]
    bench = Bench(Predictor.load(given.model), chips, np.array([age for _, age in chosen]))
    detector, cascade = YuNet(checked(given.detector)), Haar()
    print(f"{len(chips)} chips, none seen by the model.\n{'':<32} found   error    worse   moved: mean, median")
    bench.line("chips as they are", chips)
    bench.line("chips, found and aligned", cut(chips, [detector.search(chip) for chip in chips], _aligned))
    bench.line("chips, found by the cascade", cut(chips, [cascade.search(chip) for chip in chips], _aligned))
    for side in SIDES:
        bench.line(f"chips of {side} px as they are", [fit(chip, side) for chip in chips])
        scenes = [anywhere(chip, side, random) for chip in chips]
        for look in (DETECTION_SIDE, 2 * DETECTION_SIDE):
            faces = [detector.find(scene, look) for scene in scenes]
            bench.line(f"{side} px, looked for at {look}", cut(scenes, faces, _aligned))
        bench.line(f"{side} px, cut by its box", cut(scenes, faces, lambda scene, face: boxed(scene, face.box)))
        bench.line(
            f"{side} px, by the cascade",
            cut(scenes, [cascade.find(scene, DETECTION_SIDE) for scene in scenes], _aligned),
        )


def _aligned(image: Image, face: Face) -> Image:
    return align(image, face.landmarks)


if __name__ == "__main__":
    main()
