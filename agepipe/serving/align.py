"""A face as the network was trained to see it: turned, scaled and moved until its landmarks lie where UTKFace's do.

UTKFace's chips are cut tightly and upright. A network that learned from them errs by years on a face that is cut by
its box (docs/measured.md says by how many), so every face is warped to the geometry of those chips first.
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.imaging import Image

SIDE = 200
"""Side of UTKFace's chips, px."""
LANDMARKS = np.array([[58.4, 57.7], [136.5, 58.9], [94.7, 100.2], [62.9, 136.0], [128.8, 137.1]])
"""Eyes, nose and corners of the mouth on such a chip, px, image left first: medians over 4,308 of UTKFace's chips, by
YuNet (`python -m studies.landmarks`)."""
COARSE = 0.5
"""A face that must shrink below this share is shrunk by averaging first; sampling alone would skip pixels."""


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Turn, scale and shift that bring points nearest to others, in least squares; it never mirrors.

    Args:
        source: `(n, 2)`, x and y.
        target: `(n, 2)`.

    Returns:
        `(2, 3)`, as OpenCV warps by. (S. Umeyama, PAMI 13(4), 1991, in two dimensions.)
    """
    centre, aim = source.mean(axis=0), target.mean(axis=0)
    (x, y), (u, v) = (source - centre).T, (target - aim).T
    spread = max(float((x * x + y * y).sum()), 1e-9)  # points that coincide say nothing of size or angle
    cosine, sine = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.hstack([turn, (aim - turn @ centre)[:, None]])


def align(image: Image, landmarks: NDArray[np.floating]) -> Image:
    """The face at the geometry of UTKFace's chips, uint8 RGB `(SIDE, SIDE, 3)`; black where the picture ends.

    Args:
        image: uint8 RGB `(height, width, 3)`.
        landmarks: of `agepipe.serving.detect.face.Face`, px of the image.
    """
    matrix = similarity(landmarks, LANDMARKS)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < COARSE:
        image, matrix = _shrunk(image, matrix, scale)
    return cast(Image, cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR))


def _shrunk(image: Image, matrix: NDArray[np.float64], scale: float) -> tuple[Image, NDArray[np.float64]]:
    """The picture shrunk to the scale of the chip, and the warp that is left to do.

    OpenCV's areas map the pixel centre x to (x + 0.5) · scale - 0.5.
    """
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ratio = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
    turn = matrix[:, :2] * ratio
    return cast(Image, small), np.hstack([turn, (matrix[:, 2] + matrix[:, :2] @ (0.5 * ratio - 0.5))[:, None]])
