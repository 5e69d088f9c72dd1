"""Decode the bytes of a file to an RGB picture, and fit it to a square; ingest, serving and prediction all use this.

The header is read first: nothing is decoded and no memory is allocated before the announced size is accepted. The file
must be complete: one that a decoder has to repair or fill up is rejected. A picture that would take too much memory is
decoded at a half, a quarter or an eighth of its sides.
"""

import io
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile

from agepipe.core.errors import ImageError
from agepipe.model import headers, jpeg, png
from agepipe.model.headers import PILLOW_ERRORS, Header

Image = NDArray[np.uint8]

MAX_PIXELS = 40_000_000
"""Maximum pixels of a decoded picture unless a caller sets another limit; larger pictures are decoded smaller."""
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
"""File name endings of photographs that can be read."""

_DECODE = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_PIXEL = 6
"""Bytes of memory a pixel: its colours, once as decoded and once upright."""
_SHRINKS = (1, 2, 4, 8)


class Limits(NamedTuple):
    """Which pictures are accepted."""

    min_side: int = 1
    """Smallest side, px."""
    max_pixels: int = MAX_PIXELS
    """Largest width × height of a decoded picture, px; a larger one is decoded at 1/2, 1/4 or 1/8 of its sides."""

    @property
    def memory(self) -> int:
        """Bytes of memory that decoding may take besides the file; a JPEG takes less, as it shrinks while decoding."""
        return 20 * self.max_pixels

    @property
    def file(self) -> int:
        """Maximum bytes of a file; a larger one is not read."""
        return 4 * self.max_pixels


DEFAULT_LIMITS = Limits()


class Photograph(NamedTuple):
    """A decoded picture and its original size."""

    image: Image
    """Upright, uint8 RGB `(height, width, 3)`."""
    width: int
    """Width of the original, upright, px; `image` is smaller if it was decoded at a part of its size."""
    height: int
    """Height of the original, upright, px."""

    @property
    def scale(self) -> float:
        """Ratio of the original's width to that of `image`."""
        return self.width / int(self.image.shape[1])


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Decode a photograph, upright (its EXIF orientation applied), uint8 RGB `(height, width, 3)`.

    JPEG, PNG, WebP and BMP are read. Bytes after the end of the picture are ignored. A picture with more pixels than
    the limits allow is decoded at a smaller size; `photograph` returns the original size as well.

    Raises:
        ImageError: with the reason `not an image`, `truncated`, `damaged`, `too small` or `too large`.
    """
    return photograph(data, limits).image


def photograph(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Photograph:
    """Decode a photograph as `decode`, and return the original size as well.

    Raises:
        ImageError: as `decode`.
    """
    image, header = _decoded(data, limits)
    sides = (header.height, header.width) if header.turn in (5, 6, 7, 8) else (header.width, header.height)
    return Photograph(_upright(image, header.turn), *sides)


def _decoded(data: bytes, limits: Limits) -> tuple[Image, Header]:
    """The picture as stored, decoded smaller if the limits require it, and its header."""
    if data.startswith(b"\xff\xd8\xff"):
        found = jpeg.read(data)
        return jpeg.decode(data, found, _shrink(found.header, limits)), found.header
    if data.startswith(png.SIGNATURE):
        return _png(data, limits)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = headers.webp(data)
        shrink = _shrink(header, limits)
        return _smaller(_by_opencv(data, header), shrink), header
    if data.startswith(b"BM"):
        return _bmp(data, limits)
    raise headers.unknown(data)


def _shrink(header: Header, limits: Limits) -> int:
    """The divisor of the sides: 1, 2, 4 or 8. Only a JPEG shrinks while decoding; other formats are decoded whole.

    Raises:
        ImageError: the picture is too small, or takes too much memory even at an eighth.
    """
    pixels, said = header.width * header.height, f"{header.width}×{header.height} px"
    if min(header.width, header.height) < limits.min_side:
        raise ImageError("too small", f"{said}; each side must have at least {limits.min_side} px.")
    shrink = next((part for part in _SHRINKS if pixels <= limits.max_pixels * part**2), 0)
    whole = pixels if header.format != "JPEG" else limits.max_pixels if shrink else pixels // _SHRINKS[-1] ** 2
    needed = header.working + _PIXEL * min(whole, pixels)
    if not shrink or needed > limits.memory:
        raise ImageError(
            "too large",
            f"{said}; decoding this {header.format} takes {needed / 1e6:.0f} MB of memory, at most "
            f"{limits.memory / 1e6:.0f} MB are allowed; make it smaller or save it as an ordinary JPEG.",
        )
    return shrink


def _png(data: bytes, limits: Limits) -> tuple[Image, Header]:
    header = png.header(data)
    shrink = _shrink(header, limits)
    found = png.read(data)
    png.check_whole(data, found)
    return _smaller(_by_opencv(png.plain(data, found), header), shrink), header._replace(turn=found.turn)


def _bmp(data: bytes, limits: Limits) -> tuple[Image, Header]:
    try:
        opened = BmpImageFile(io.BytesIO(data))  # reads only the header
    except PILLOW_ERRORS as error:
        raise ImageError("not an image", f"its BMP header cannot be read ({error}).") from error
    width, height = opened.size
    header = Header("BMP", width, height, working=4 * width * height)
    shrink = _shrink(header, limits)
    try:
        opened.load()
    except PILLOW_ERRORS as error:
        raise ImageError("truncated", f"its BMP data stops early ({error}).") from error
    del opened
    return _smaller(_by_opencv(data, header), shrink), header


def _by_opencv(data: bytes, header: Header) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE)
    except cv2.error as error:
        raise ImageError("not an image", f"its {header.format} data cannot be decoded ({error.err}).") from error
    if image is None:
        raise ImageError("not an image", f"its header is that of a {header.format}, but nothing can be decoded.")
    return cast(Image, image)


def _smaller(image: Image, shrink: int) -> Image:
    if shrink == 1:
        return image
    size = (-(-image.shape[1] // shrink), -(-image.shape[0] // shrink))
    return cast(Image, cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def fit(image: Image, size: int, out: Image | None = None) -> Image:
    """Crop the centre square and resize it: uint8 `(size, size, 3)`; area averaging to shrink, linear to enlarge.

    Args:
        image: uint8 `(height, width, 3)`.
        size: side of the result, px.
        out: buffer for the result; None allocates one.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(square, (size, size), dst=out, interpolation=method))


def _upright(image: Image, turn: int) -> Image:
    """Undo the EXIF orientations 2 to 8; the picture is unchanged for any other value."""
    turned: Any = image
    if turn in (5, 6, 7, 8):
        turned = turned.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if turn in (3, 4, 7, 8):
        turned = turned[::-1]
    return image if turned is image else np.ascontiguousarray(turned)
