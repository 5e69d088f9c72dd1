"""A detected face: a bounding box, five landmarks and a score."""

from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.imaging import Image

SAME_FACE_IOU = 0.3
"""Intersection over union above which two boxes belong to the same face."""
SAME_FACE_SHARE = 0.6
"""Share of the smaller box that is inside the other, above which two boxes belong to the same face."""
MIN_FACE = 24
"""Least side of a box, px; the chip of a smaller face has fewer than a tenth of the pixels that the presets' networks
are trained on, so no age is predicted for it."""


class Face(NamedTuple):
    """A detected face, in px of the image in which it was detected."""

    box: NDArray[np.float32]
    """Left, top, width, height, `(4,)`; may extend beyond the image."""
    landmarks: NDArray[np.float32]
    """Two eyes, nose, two corners of the mouth, x and y, `(5, 2)`; left before right as seen in the upright face."""
    score: float
    """The detector's score, 0 to 1; 1 if the detector gives none."""

    @property
    def area(self) -> float:
        """Area of the box, px²."""
        return float(self.box[2] * self.box[3])

    @property
    def large_enough(self) -> bool:
        """Whether the face has enough pixels to predict an age."""
        return self.area >= MIN_FACE**2

    def moved(self, ratio: NDArray[np.floating], corner: tuple[int, int] = (0, 0)) -> "Face":
        """The face in px of the image of which a scaled part was searched.

        Args:
            ratio: px of the image for each px of the searched part, x and y, `(2,)`.
            corner: left and top of the part in the image, px.
        """
        shift = np.array(corner, dtype=np.float32)
        box = np.concatenate([self.box[:2] * ratio + shift, self.box[2:] * ratio])
        return Face(box.astype(np.float32), (self.landmarks * ratio + shift).astype(np.float32), self.score)

    def same(self, other: "Face") -> bool:
        """Whether the boxes overlap so much that they belong to the same face."""
        return bool(overlapping(self.box, other.box[None])[0])


def overlapping(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the boxes `(n, 4)` belong to the same face as a box `(4,)`, bool `(n,)`."""
    start = np.maximum(box[:2], boxes[:, :2])
    end = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    common = np.prod(np.maximum(end - start, 0), axis=1).astype(float)
    area, areas = float(box[2] * box[3]), np.prod(boxes[:, 2:], axis=1).astype(float)
    union = area + areas - common
    return np.asarray((common > SAME_FACE_IOU * union) | (common > SAME_FACE_SHARE * np.minimum(area, areas)))


def shrink(image: Image, side: int) -> Image:
    """Scale an image down so that its longest side is at most `side` px; a smaller one is returned unchanged."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
