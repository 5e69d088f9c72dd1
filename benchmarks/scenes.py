"""Photographs made from chips: each pasted into a larger picture, turned, scaled and shifted."""

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.imaging import Image

PLACES = ((160, 130), (480, 130), (160, 350), (480, 350))
"""Centres of up to four faces in a frame of 640×480 px."""
SIDE = 170
"""Side of such a face's chip, px."""


def background(random: np.random.Generator, width: int = 640, height: int = 480) -> Image:
    """Smooth random colours, uint8 RGB `(height, width, 3)`."""
    coarse = random.integers(40, 200, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def pasted(scene: Image, chip: Image, centre: tuple[float, float], side: float, angle: float = 0.0) -> Image:
    """A scene with a chip in it.

    Args:
        scene: uint8 RGB `(height, width, 3)`; left as it is.
        chip: uint8 RGB, square.
        centre: where the chip's centre goes, px.
        side: of the chip in the scene, px.
        angle: by how much it is turned, degrees, clockwise.
    """
    if side < len(chip):
        chip = np.asarray(cv2.resize(chip, (round(side), round(side)), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    middle = (len(chip) - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), -angle, side / len(chip))
    turn[:, 2] = turn[:, 2] + np.array(centre) - middle
    size = scene.shape[1::-1]
    mask = cv2.warpAffine(np.ones(chip.shape[:2], np.float32), turn, size)[..., None]
    face = cv2.warpAffine(chip, turn, size)
    return np.asarray(face * mask + scene * (1 - mask), dtype=np.uint8)


def anywhere(chip: Image, side: float, random: np.random.Generator) -> Image:
    """A scene of its own for a chip, somewhere in it, turned by up to 15 degrees."""
    scene = background(random)
    height, width = scene.shape[:2]
    margin = 0.75 * side
    centre = (random.uniform(margin, width - margin), random.uniform(margin, height - margin))
    return pasted(scene, chip, centre, side, random.uniform(-15, 15))


def boxed(image: Image, box: NDArray[np.floating]) -> Image:
    """What lies in a box: how a face would be cut without landmarks."""
    left, top, width, height = (int(value) for value in box)
    return image[max(0, top) : top + height, max(0, left) : left + width]
