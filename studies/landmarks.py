"""Where the landmarks lie on UTKFace's chips: the numbers of `agepipe.serving.align.LANDMARKS`.

    python -m studies.landmarks UTKFACE.tar --detector face_detection_yunet_2026may.onnx

YuNet looks at a random part of the chips as they are. Printed are the median place of each landmark on the chip of
200×200 px, and its spread (half the distance between the 16th and the 84th percentile, px).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from agepipe.data import archives
from agepipe.model.imaging import Image, decode
from agepipe.serving.align import LANDMARKS, SIDE
from agepipe.serving.detect.yunet import YuNet, checked

NAMES = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")


def chips(locations: Sequence[Path], share: float, seed: int) -> Iterator[Image]:
    """A random share of the chips."""
    random = np.random.default_rng(seed)
    for location in locations:
        for entry in archives.entries(location):
            if random.random() < share:
                yield decode(entry.read())


def main() -> None:
    """Print the table, and the numbers as they are written in the code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="archives or folders of UTKFace's chips")
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.2)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    detector = YuNet(checked(given.detector))
    seen = [chip for chip in chips(given.data, given.share, seed=1) if chip.shape == (SIDE, SIDE, 3)]
    found = [faces[0].landmarks for chip in seen if (faces := detector.find(chip, SIDE))]
    low, middle, high = np.percentile(np.stack(found), [16, 50, 84], axis=0)
    print(f"{len(found)} of {len(seen)} chips have a face that YuNet finds ({len(found) / len(seen):.1%}).")
    print("landmark               median x, y     spread x, y     in the code")
    for name, *pairs in zip(NAMES, middle, (high - low) / 2, LANDMARKS, strict=True):
        print(f"{name:<18}" + "".join(f"{x:>9.1f} {y:>6.1f}" for x, y in pairs))


if __name__ == "__main__":
    main()
