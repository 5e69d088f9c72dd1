"""Where the face detector's file comes from: YuNet of the OpenCV Zoo (MIT licence), 230 kB, known by its digest.

It is taken from where the user says, or from the workspace, into which it is fetched once. Whatever its way, a file
with another digest is refused: the landmarks of another export lie elsewhere.
"""

import hashlib
import os
import urllib.request
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.core.artifacts import replacing
from agepipe.core.errors import DetectorError, ModelError

FILE = "face_detection_yunet_2026may.onnx"
DIGEST = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
"""SHA-256 of the file."""
URL = (
    "https://github.com/opencv/opencv_zoo/raw/47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_detection_yunet/"
    + FILE
)
VARIABLE = "AGEPIPE_DETECTOR"
"""Environment variable that names the file, for machines without a network."""
REMEDY = f"download {URL} by hand and put it there, or name the file in {VARIABLE}."
SECONDS = 30.0
"""How long the server may be silent."""


def located(runtime: Runtime, url: str = URL) -> Path:
    """The detector's file: the one that AGEPIPE_DETECTOR names, or that of the workspace, fetched if need be.

    Args:
        runtime: the workspace that keeps it.
        url: where it is published.

    Raises:
        DetectorError: there is none and it cannot be fetched.
        ModelError: it is not the file that it should be.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return checked(Path(named).expanduser())
    path = runtime.workspace / "detectors" / FILE
    return checked(path) if path.is_file() else _fetched(path, url)


def checked(path: Path) -> Path:
    """The path itself, if it is the file that it should be.

    Raises:
        ModelError: it is missing or another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the face detector cannot be read ({error.strerror}); {REMEDY}") from error
    _check(content, str(path))
    return path


def _fetched(path: Path, url: str) -> Path:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            content: bytes = answer.read()
    except (OSError, ValueError) as error:
        raise DetectorError(f"{path}: YuNet's file is not there and cannot be fetched ({error}); {REMEDY}") from error
    _check(content, url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise DetectorError(f"{path}: YuNet's file cannot be kept ({error.strerror}); {REMEDY}") from error
    return path


def _check(content: bytes, origin: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != DIGEST:
        raise ModelError(f"{origin}: not the face detector {FILE} (SHA-256 {found[:10]}, not {DIGEST[:10]}); {REMEDY}")
