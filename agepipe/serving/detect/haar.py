"""The Haar cascade of OpenCV, a face detector without a model file; it gives boxes, no landmarks.

It misses more faces than YuNet, reports more faces that are none, and does not measure how a head is rotated, so the
predicted ages are less exact. It is used where YuNet's file is missing and cannot be downloaded.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.core.errors import ModelError
from agepipe.model.imaging import Image
from agepipe.serving.align import LANDMARKS, SIDE
from agepipe.serving.detect.face import Face, shrink

FILE = "haarcascade_frontalface_default.xml"
SCALE_FACTOR, MIN_NEIGHBOURS = 1.1, 5
"""Arguments of OpenCV's `detectMultiScale`."""
WINDOW = 24
"""Side of the cascade's window, px: the smallest face that it can detect."""
MAX_SIDE = 2560
"""Longest side, px, to which `search` scales a photograph down; the cascade searches all face sizes at once, and
reports more false faces above this side."""
CHIP_SIDE, CHIP_OFFSET = 0.98, 0.085
"""Side of UTKFace's chip as a share of the box's width, and how far its centre is below that of the box, as a share of
the box's height."""


class Haar:
    """The frontal face cascade; an instance must not be used by several threads at once."""

    title = "Haar cascade"

    def __init__(self) -> None:
        """Load the cascade that OpenCV's wheel contains.

        Raises:
            ModelError: this OpenCV has no cascades, as OpenCV 5.
        """
        path = Path(cv2.__file__).parent / "data" / FILE
        if not path.is_file():
            raise ModelError(f"{path}: this OpenCV ({cv2.__version__}) has no Haar cascades; install opencv-python 4.")
        self._cascade = cv2.CascadeClassifier(str(path))

    def find(self, image: Image, side: int) -> list[Face]:
        """Detect upright faces; see `agepipe.serving.detect.detector.FaceDetector.find`."""
        small = shrink(image, side)
        height, width = small.shape[:2]
        if min(width, height) < WINDOW:
            return []
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        boxes = self._cascade.detectMultiScale(grey, SCALE_FACTOR, MIN_NEIGHBOURS, minSize=(WINDOW, WINDOW))
        ratio = np.array([image.shape[1] / width, image.shape[0] / height] * 2, dtype=np.float32)
        faces = [_face(np.asarray(box, dtype=np.float32) * ratio) for box in boxes]
        return sorted(faces, key=lambda face: -face.area)

    def search(self, image: Image) -> list[Face]:
        """Detect upright faces in a photograph of any size, largest first."""
        return self.find(image, MAX_SIDE)


def _face(box: NDArray[np.float32]) -> Face:
    """A face with the landmarks of an upright UTKFace chip, so that `align` cuts the square of the chip."""
    left, top, width, height = box
    side = CHIP_SIDE * width
    corner = np.array([left + (width - side) / 2, top + height / 2 + CHIP_OFFSET * height - side / 2])
    landmarks = corner + (LANDMARKS + 0.5) * side / SIDE - 0.5
    return Face(box, landmarks.astype(np.float32), 1.0)
