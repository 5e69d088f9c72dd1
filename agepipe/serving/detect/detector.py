"""Faces in a picture: a box and five landmarks each, found by YuNet through OpenCV, or by `haar` in its place."""

from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np

from agepipe.core.errors import ModelError
from agepipe.model.imaging import Image
from agepipe.serving.detect.face import SAME, Face
from agepipe.serving.detect.search import searched

SURE = 0.7
"""YuNet's score from which on something counts as a face; 99 % of UTKFace's chips score above 0.9."""
UNSURE = 0.4
"""Score from which on something in a photograph is looked at again: a face on its side, or a very small one."""
MOST = 5000
"""Candidates that are kept of one search; a face has several."""
SMALLEST = 16
"""A picture with a shorter side, px, holds no face that YuNet could find."""
LEAST = 64
"""Side, px, to which smaller pictures are filled up with black: of a side of at most 32 px, OpenCV 4.14 makes nonsense
(boxes at infinity)."""


class Finder(Protocol):
    """What finds faces: `Detector` or `agepipe.serving.detect.haar.Haar`."""

    title: str

    def find(self, image: Image, side: int) -> list[Face]:
        """The faces of a picture, largest first, looked for at this longest side."""
        ...

    def search(self, image: Image) -> list[Face]:
        """The faces of a photograph of any size, largest first."""
        ...


class Detector:
    """YuNet, loaded; for one thread at a time."""

    title = "YuNet"

    def __init__(self, path: Path, sure: float = SURE) -> None:
        """Load it.

        Raises:
            ModelError: OpenCV cannot read the file.
        """
        self._sure = sure
        try:
            self._yunet = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min(sure, UNSURE), SAME, MOST)
        except cv2.error as error:
            raise ModelError(f"{path}: OpenCV cannot load it as a face detector ({error.err}).") from error

    def find(self, image: Image, side: int) -> list[Face]:
        """The upright faces of a picture, largest first.

        Args:
            image: uint8 RGB `(height, width, 3)`.
            side: longest side, px, to which a larger picture is shrunk for the search alone.
        """
        small = shrunk(image, side)
        ratio = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]], dtype=np.float32)
        found = [face.moved(ratio) for face in self._candidates(small) if face.score >= self._sure]
        return sorted(found, key=lambda face: -face.area)

    def search(self, image: Image) -> list[Face]:
        """The faces of a photograph of any size and turn, largest first."""
        return searched(self._candidates, image, self._sure)

    def _candidates(self, image: Image) -> list[Face]:
        """What may be an upright face in a picture that is searched as it is."""
        height, width = image.shape[:2]
        if min(width, height) < SMALLEST:
            return []
        right, below = max(0, LEAST - width), max(0, LEAST - height)
        filled = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT) if right or below else image
        self._yunet.setInputSize(filled.shape[1::-1])
        _, rows = self._yunet.detect(cv2.cvtColor(filled, cv2.COLOR_RGB2BGR))
        return [] if rows is None else [Face(row[:4], row[4:14].reshape(5, 2), float(row[14])) for row in rows]


def shrunk(image: Image, side: int) -> Image:
    """The picture, its longest side no longer than `side` px."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
