"""Align a face: warp it so that its landmarks are at the positions of those of UTKFace's chips.

UTKFace's chips are cropped tightly and upright. On faces that are cropped by their bounding box, a network that was
trained on these chips errs by years more (docs/measured.md).
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.imaging import Image

SIDE = 200
"""Side of UTKFace's chips, px."""
LANDMARKS = np.array([[58.4, 57.7], [136.5, 58.9], [94.7, 100.2], [62.9, 136.0], [128.8, 137.1]])
"""Eyes, nose and corners of the mouth on a chip, px, left in the image first: medians of YuNet's landmarks over 4,308
chips (`python -m studies.landmarks`)."""
AREA_SCALE = 0.5
"""Scale below which the image is shrunk by area averaging before the warp, whose interpolation would skip pixels."""


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """The similarity transform without reflection that maps points to others with the least squared error.

    S. Umeyama, PAMI 13(4), 1991, in two dimensions.

    Args:
        source: points, x and y, `(n, 2)`.
        target: the points that they are mapped to, `(n, 2)`.

    Returns:
        Matrix of the transform as `cv2.warpAffine` takes it, float64 `(2, 3)`.
    """
    centre, target_centre = source.mean(axis=0), target.mean(axis=0)
    (x, y), (u, v) = (source - centre).T, (target - target_centre).T
    spread = max(float((x * x + y * y).sum()), 1e-9)  # avoids a division by 0 if all points coincide
    cosine, sine = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.hstack([linear, (target_centre - linear @ centre)[:, None]])


def align(image: Image, landmarks: NDArray[np.floating]) -> Image:
    """Warp a face to the geometry of UTKFace's chips.

    Args:
        image: uint8 RGB `(height, width, 3)`.
        landmarks: of `agepipe.serving.detect.face.Face`, px of the image, `(5, 2)`.

    Returns:
        The chip, uint8 RGB `(SIDE, SIDE, 3)`; black outside of the image.
    """
    matrix = similarity(landmarks, LANDMARKS)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < AREA_SCALE:
        image, matrix = _shrunk(image, matrix, scale)
    return cast(Image, cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR))


def _shrunk(image: Image, matrix: NDArray[np.float64], scale: float) -> tuple[Image, NDArray[np.float64]]:
    """The image shrunk to the scale of the chip, and the remaining warp.

    `cv2.INTER_AREA` maps the pixel centre x to (x + 0.5) · scale - 0.5.
    """
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ratio = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
    linear = matrix[:, :2] * ratio
    return cast(Image, small), np.hstack([linear, (matrix[:, 2] + matrix[:, :2] @ (0.5 * ratio - 0.5))[:, None]])
