"""Pictures embedded in a page as data URIs."""

import base64

import cv2
import numpy as np

from agepipe.model.imaging import Image


def data_uri(picture: Image, side: int, quality: int = 85) -> str:
    """Encode a square picture, uint8 RGB `(s, s, 3)`, as a data URI of a JPEG that is at most `side` px wide."""
    side = min(side, picture.shape[0])
    small = cv2.resize(np.ascontiguousarray(picture), (side, side), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode()
