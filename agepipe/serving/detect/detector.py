"""What every face detector offers, and the choice between YuNet and the Haar cascade."""

from typing import Protocol

from agepipe.config.runtime import Runtime
from agepipe.core.errors import DetectorError
from agepipe.model.imaging import Image
from agepipe.serving.detect.face import Face
from agepipe.serving.detect.haar import Haar
from agepipe.serving.detect.yunet import URL, YuNet, model_file


class FaceDetector(Protocol):
    """A face detector; `agepipe.serving.detect.yunet.YuNet` and `agepipe.serving.detect.haar.Haar` are two."""

    title: str
    """Name, as users see it."""

    def find(self, image: Image, side: int) -> list[Face]:
        """Detect faces in a video frame.

        Args:
            image: uint8 RGB `(height, width, 3)`.
            side: longest side, px; a larger image is scaled down to it for the detection.

        Returns:
            The upright faces, largest first, in px of `image`.
        """
        ...

    def search(self, image: Image) -> list[Face]:
        """Detect faces in a photograph of any size, uint8 RGB `(height, width, 3)`; slower than `find`, finds more.

        Returns:
            The faces, largest first, in px of `image`.
        """
        ...


def load_detector(runtime: Runtime, url: str = URL) -> tuple[FaceDetector, list[str]]:
    """Load YuNet, or the Haar cascade if YuNet's file is missing and cannot be downloaded.

    Args:
        runtime: its workspace keeps YuNet's file.
        url: where YuNet's file is published.

    Returns:
        The detector, and notes for the user: one if it is the Haar cascade, else none.

    Raises:
        ModelError: YuNet's file exists but cannot be used, or OpenCV has no Haar cascade either.
    """
    try:
        return YuNet(model_file(runtime, url)), []
    except DetectorError as error:
        return Haar(), [f"Faces are found by the Haar cascade, as upright boxes, and ages are less exact: {error}"]
