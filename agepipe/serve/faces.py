"""Faces in a picture: a box and five landmarks each, found by YuNet through OpenCV (`agepipe.serve.haar` stands in)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.errors import ModelError
from agepipe.imaging import Image

SURE = 0.7
"""YuNet's score from which on something counts as a face; 99 % of UTKFace's chips score above 0.9."""
OVERLAP = 0.3
"""Share of overlap above which the less sure of two boxes is dropped."""
MOST = 200
"""Faces that are kept of one picture."""
SIDES = (640, 320, 1280)
"""Longest sides, px, at which a photograph is looked at until a face is found: YuNet sees faces of 10 to 300 px, so a
face that fills the photograph needs a smaller one, and faces in a crowd a larger one."""
SMALLEST = 16
"""A picture with a shorter side, px, holds no face that YuNet could find."""
LEAST = 64
"""Side, px, to which smaller pictures are filled up with black: of a side of at most 32 px, OpenCV 4.14 makes nonsense
(boxes at infinity)."""


class Face(NamedTuple):
    """A face in a picture, in pixels of that picture."""

    box: NDArray[np.float32]
    """Left, top, width, height, `(4,)`; may reach over the border."""
    landmarks: NDArray[np.float32]
    """Eyes, nose, corners of the mouth, image left before image right: `(5, 2)`, x and y."""
    score: float
    """How sure the detector is, 0 to 1; 1 where it does not say."""

    @property
    def area(self) -> float:
        """Of the box, px²."""
        return float(self.box[2] * self.box[3])


class Finder(Protocol):
    """What finds faces: `Detector` or `agepipe.serve.haar.Haar`."""

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
        try:
            self._yunet = cv2.FaceDetectorYN.create(str(path), "", (320, 320), sure, OVERLAP, MOST)
        except cv2.error as error:
            raise ModelError(f"{path}: OpenCV cannot load it as a face detector ({error.err}).") from error

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
        right, below = max(0, LEAST - width), max(0, LEAST - height)
        filled = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT) if right or below else small
        self._yunet.setInputSize(filled.shape[1::-1])
        _, rows = self._yunet.detect(cv2.cvtColor(filled, cv2.COLOR_RGB2BGR))
        ratio = np.array([image.shape[1] / width, image.shape[0] / height], dtype=np.float32)
        found = [] if rows is None else [_face(row, ratio) for row in rows]
        return sorted(found, key=lambda face: -face.area)

    def search(self, image: Image) -> list[Face]:
        """The faces of a photograph of any size, largest first; looked for at several sizes until there is one."""
        return searched(self, image, SIDES)


def shrunk(image: Image, side: int) -> Image:
    """The picture, its longest side no longer than `side` px."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def searched(finder: Finder, image: Image, sides: Sequence[int]) -> list[Face]:
    """What a finder finds in a photograph of any size, looked for at several longest sides until there is a face."""
    longest = max(image.shape[:2])
    tried = [side for side in sides if side < longest] or [longest]
    return next((found for side in tried if (found := finder.find(image, side))), [])


def _face(row: NDArray[np.float32], ratio: NDArray[np.float32]) -> Face:
    corners = cast(NDArray[np.float32], row[:14].reshape(7, 2) * ratio)
    return Face(corners[:2].reshape(4), corners[2:], float(row[14]))
