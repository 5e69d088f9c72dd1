"""YuNet, a face detector that gives five landmarks, and its model file.

The file is that of the OpenCV Zoo (MIT licence, 230 kB). It comes from the path in AGEPIPE_DETECTOR, or from the
workspace, into which it is downloaded once. A file with another SHA-256 digest is refused, because other exports of
YuNet give other landmarks.
"""

import hashlib
import os
import urllib.request
from pathlib import Path

import cv2
import numpy as np

from agepipe.config.runtime import Runtime
from agepipe.core.artifacts import replacing
from agepipe.core.errors import DetectorError, ModelError
from agepipe.model.imaging import Image
from agepipe.serving.detect.face import SAME_FACE_IOU, Face, shrink
from agepipe.serving.detect.search import searched

MIN_SCORE = 0.7
"""Least score of a face; 99 % of UTKFace's chips score above 0.9."""
MIN_CANDIDATE_SCORE = 0.4
"""Least score at which `search` examines a candidate more closely: rotated and very small faces score low at first."""
MAX_CANDIDATES = 5000
"""Most candidates of one detection; a face has several."""
MIN_SIDE = 16
"""Shortest side, px, of an image in which YuNet can find a face."""
PADDED_SIDE = 64
"""Side, px, to which smaller images are padded with black; up to 32 px, OpenCV 4.14 gives boxes at infinity."""

FILE = "face_detection_yunet_2026may.onnx"
DIGEST = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
"""SHA-256 of the file."""
URL = (
    "https://github.com/opencv/opencv_zoo/raw/47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_detection_yunet/"
    + FILE
)
VARIABLE = "AGEPIPE_DETECTOR"
"""Environment variable with the path of the file, for machines without a network."""
REMEDY = f"download {URL} and put it there, or set {VARIABLE} to the path of the file."
TIMEOUT = 30.0
"""Timeout of the download's connection and of each read, s."""


class YuNet:
    """YuNet through OpenCV; an instance must not be used by several threads at once."""

    title = "YuNet"

    def __init__(self, path: Path, min_score: float = MIN_SCORE) -> None:
        """Load the model file.

        Args:
            path: the model file.
            min_score: least score of a face, 0 to 1.

        Raises:
            ModelError: OpenCV cannot load the file.
        """
        self._min_score = min_score
        least = min(min_score, MIN_CANDIDATE_SCORE)
        try:
            self._yunet = cv2.FaceDetectorYN.create(str(path), "", (320, 320), least, SAME_FACE_IOU, MAX_CANDIDATES)
        except cv2.error as error:
            raise ModelError(f"{path}: OpenCV cannot load it as a face detector ({error.err}).") from error

    def find(self, image: Image, side: int) -> list[Face]:
        """Detect upright faces; see `agepipe.serving.detect.detector.FaceDetector.find`."""
        small = shrink(image, side)
        ratio = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]], dtype=np.float32)
        found = [face.moved(ratio) for face in self._candidates(small) if face.score >= self._min_score]
        return sorted(found, key=lambda face: -face.area)

    def search(self, image: Image) -> list[Face]:
        """Detect faces at several scales and in four rotations, largest first."""
        return searched(self._candidates, image, self._min_score)

    def _candidates(self, image: Image) -> list[Face]:
        """Detect possible upright faces at the scale of the image."""
        height, width = image.shape[:2]
        if min(width, height) < MIN_SIDE:
            return []
        right, bottom = max(0, PADDED_SIDE - width), max(0, PADDED_SIDE - height)
        padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT) if right or bottom else image
        self._yunet.setInputSize(padded.shape[1::-1])
        _, rows = self._yunet.detect(cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))
        return [] if rows is None else [Face(row[:4], row[4:14].reshape(5, 2), float(row[14])) for row in rows]


def model_file(runtime: Runtime, url: str = URL) -> Path:
    """Path of YuNet's file: the one named in AGEPIPE_DETECTOR, or that of the workspace, downloaded if it is missing.

    Args:
        runtime: its workspace keeps the file.
        url: where the file is published.

    Raises:
        DetectorError: the file is missing and cannot be downloaded.
        ModelError: the file cannot be read, or its digest is wrong.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return checked(Path(named).expanduser())
    path = runtime.workspace / "detectors" / FILE
    return checked(path) if path.is_file() else _downloaded(path, url)


def checked(path: Path) -> Path:
    """Return the path if the file has the right digest.

    Raises:
        ModelError: the file cannot be read, or its digest is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the face detector cannot be read ({error.strerror}); {REMEDY}") from error
    _check(content, str(path))
    return path


def _downloaded(path: Path, url: str) -> Path:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content: bytes = response.read()
    except (OSError, ValueError) as error:
        raise DetectorError(f"{path}: YuNet's file is missing and the download failed ({error}); {REMEDY}") from error
    _check(content, url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise DetectorError(f"{path}: YuNet's file cannot be saved ({error.strerror}); {REMEDY}") from error
    return path


def _check(content: bytes, origin: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != DIGEST:
        raise ModelError(f"{origin}: not the face detector {FILE} (SHA-256 {found[:10]}, not {DIGEST[:10]}); {REMEDY}")
