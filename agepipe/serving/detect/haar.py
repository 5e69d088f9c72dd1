"""Faces without a network or a file to fetch: the Haar cascade that lies in OpenCV's wheel. It gives boxes alone.

It misses more faces than YuNet, sees some where none are, and knows nothing of a turned head, so the answers are worse;
it is for machines where YuNet's file can be neither found nor fetched.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.config.runtime import Runtime
from agepipe.core.errors import DetectorError, ModelError
from agepipe.model.imaging import Image
from agepipe.serving.align import LANDMARKS, SIDE
from agepipe.serving.detect.detector import Detector, Finder, shrunk
from agepipe.serving.detect.face import Face
from agepipe.serving.detect.yunet import URL, located

FILE = "haarcascade_frontalface_default.xml"
STEP, NEIGHBOURS = 1.1, 5
"""By what the cascade grows between two passes, and how many hits at one place make a face."""
SMALLEST = 24
"""Side of the cascade's own window, px."""
LARGEST = 2560
"""Longest side, px, to which a photograph is shrunk before it is searched: the cascade sees faces of all sizes at once,
and above this side more that are none."""
WIDE, LOWER = 0.98, 0.085
"""Side of UTKFace's chip as a share of the cascade's box, and by what share of the box its centre lies lower."""


class Haar:
    """The cascade, loaded; for one thread at a time."""

    title = "Haar cascade"

    def __init__(self) -> None:
        """Load it.

        Raises:
            ModelError: this OpenCV has no cascades (5 has dropped them).
        """
        path = Path(cv2.__file__).parent / "data" / FILE
        if not path.is_file():
            raise ModelError(f"{path}: this OpenCV ({cv2.__version__}) has no Haar cascades; install opencv-python 4.")
        self._cascade = cv2.CascadeClassifier(str(path))

    def find(self, image: Image, side: int) -> list[Face]:
        """The faces of a picture, largest first.

        Args:
            image: uint8 RGB `(height, width, 3)`.
            side: longest side, px, to which a larger picture is shrunk for the search alone.
        """
        small = shrunk(image, side)
        height, width = small.shape[:2]
        if min(width, height) < SMALLEST:
            return []
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        boxes = self._cascade.detectMultiScale(grey, STEP, NEIGHBOURS, minSize=(SMALLEST, SMALLEST))
        ratio = np.array([image.shape[1] / width, image.shape[0] / height] * 2, dtype=np.float32)
        faces = [_face(np.asarray(box, dtype=np.float32) * ratio) for box in boxes]
        return sorted(faces, key=lambda face: -face.area)

    def search(self, image: Image) -> list[Face]:
        """The upright faces of a photograph of any size, largest first."""
        return self.find(image, LARGEST)


def _face(box: NDArray[np.float32]) -> Face:
    """A face whose landmarks lie where an upright one has them, so that aligning it cuts the square of the chip."""
    left, top, width, height = box
    side = WIDE * width
    corner = np.array([left + (width - side) / 2, top + height / 2 + LOWER * height - side / 2])
    landmarks = corner + (LANDMARKS + 0.5) * side / SIDE - 0.5
    return Face(box, landmarks.astype(np.float32), 1.0)


def finder(runtime: Runtime, url: str = URL) -> tuple[Finder, list[str]]:
    """YuNet, or the cascade where its file can be neither found nor fetched, and what a user should know of that.

    Raises:
        ModelError: YuNet's file was named or is there, but cannot be used; or there is no cascade either.
    """
    try:
        return Detector(located(runtime, url)), []
    except DetectorError as error:
        return Haar(), [f"Faces are found by the Haar cascade, as upright boxes, and ages are less exact: {error}"]
