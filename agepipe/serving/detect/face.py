"""A face in a picture, as a finder of faces gives it: a box, five landmarks and a score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SAME = 0.3
"""Intersection over union above which two boxes are of one face."""
INSIDE = 0.6
"""Share of the smaller box that lies in the other, above which two boxes are of one face."""
LEGIBLE = 24
"""Side of a box, px, below which a face is too small to be answered: its chip has fewer than a tenth of the pixels that
the presets' networks are trained on."""


class Face(NamedTuple):
    """A face in a picture, in pixels of that picture."""

    box: NDArray[np.float32]
    """Left, top, width, height, `(4,)`; may reach over the border."""
    landmarks: NDArray[np.float32]
    """Eyes, nose, corners of the mouth, left before right as the upright face is seen: `(5, 2)`, x and y."""
    score: float
    """How sure the detector is, 0 to 1; 1 where it does not say."""

    @property
    def area(self) -> float:
        """Of the box, px²."""
        return float(self.box[2] * self.box[3])

    @property
    def legible(self) -> bool:
        """Whether the face is large enough to be answered."""
        return self.area >= LEGIBLE**2

    def moved(self, ratio: NDArray[np.floating], corner: tuple[int, int] = (0, 0)) -> "Face":
        """The face in pixels of a larger picture.

        Args:
            ratio: by what the part in which it was found was scaled down, x and y.
            corner: left and top of that part in the larger picture, px.
        """
        shift = np.array(corner, dtype=np.float32)
        box = np.concatenate([self.box[:2] * ratio + shift, self.box[2:] * ratio])
        return Face(box.astype(np.float32), (self.landmarks * ratio + shift).astype(np.float32), self.score)

    def same(self, other: "Face") -> bool:
        """Whether the boxes overlap so far that both are of one face."""
        return bool(overlapping(self.box, other.box[None])[0])


def overlapping(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the boxes `(n, 4)` overlap one `(4,)` so far that both are of one face."""
    start = np.maximum(box[:2], boxes[:, :2])
    end = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    common = np.prod(np.maximum(end - start, 0), axis=1).astype(float)
    area, areas = float(box[2] * box[3]), np.prod(boxes[:, 2:], axis=1).astype(float)
    return np.asarray((common > SAME * (area + areas - common)) | (common > INSIDE * np.minimum(area, areas)))
