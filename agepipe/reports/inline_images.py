"""Pictures inside a page, so that it is one file."""

import base64

import cv2
import numpy as np

from agepipe.model.imaging import Image


def data_uri(picture: Image, side: int, quality: int = 85) -> str:
    """A square RGB picture as a JPEG inside an address, at most `side` px wide, for pages that ask for nothing."""
    side = min(side, picture.shape[0])
    small = cv2.resize(np.ascontiguousarray(picture), (side, side), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode()
