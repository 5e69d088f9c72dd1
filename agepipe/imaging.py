"""The one way from a file's bytes to a square RGB picture: ingest, serving and prediction all take it.

The header is read first, so that nothing large, small, broken or foreign is decoded: that of a plain JPEG by a few
lines here, because Pillow's way costs a tenth of the decoding, all others by Pillow. OpenCV decodes, because it is
twice as fast. Pillow's format plugins are called directly: its `Image.open` tries formats that are no photographs, and
its own bomb check warns where ours refuses.
"""

import base64
import io
import re
import struct
from typing import Any, Literal, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, ExifTags, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from agepipe.errors import ImageError

Fault = Literal["not an image", "truncated", "too small", "decompression bomb"]
Image = NDArray[np.uint8]

MAX_PIXELS = 40_000_000
"""Pixels above which a header counts as a decompression bomb, unless a caller allows more."""
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
"""File names that promise a photograph which can be read."""

_PLUGINS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
_BROKEN = (SyntaxError, OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error)
"""What Pillow's plugins raise over damaged files."""
_DECODE = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG_PLAIN = b"\xff\xd8\xff\xe0"
_JPEG_TABLES = frozenset({b"\xff\xe0", b"\xff\xdb", b"\xff\xc4", b"\xff\xdd", b"\xff\xfe"})
"""JFIF, quantisation and Huffman tables, restart interval, comment."""
_JPEG_FRAMES = frozenset({b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"})
"""Baseline, extended, progressive."""
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_BARE = frozenset({b"\xff\x01", b"\xff\xd8"})
_JPEG_SCAN = b"\xff\xda"
_JPEG_END = b"\xff\xd9"


class Limits(NamedTuple):
    """Which headers are let through."""

    min_side: int = 1
    """Smallest side, px."""
    max_pixels: int = MAX_PIXELS
    """Largest width × height, px."""


DEFAULT_LIMITS = Limits()


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image:
    """The whole photograph, upright (its EXIF orientation applied), uint8 RGB `(height, width, 3)`.

    JPEG, PNG, WebP and BMP are read. Bytes after the end of the picture do no harm.

    Raises:
        ImageError: with the reason `not an image`, `truncated`, `too small` or `decompression bomb`.
    """
    header = _plain_jpeg(data)
    if header is None:
        header = _read_by_pillow(data, limits)
    else:
        _check_size(header, limits)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE)
    except cv2.error as error:
        raise ImageError("not an image", f"its {header.format} data cannot be decoded ({error.err}).") from error
    if image is None:
        raise ImageError("not an image", f"its header is that of a {header.format}, but nothing can be decoded.")
    return _upright(cast(Image, image), header.turn)


def fit(image: Image, size: int, out: Image | None = None) -> Image:
    """The centre square, scaled: uint8 `(size, size, 3)`; areas are averaged to shrink, linear to enlarge.

    Args:
        image: uint8 `(height, width, 3)`.
        size: side of the result, px.
        out: where to write the result, if the caller has a place for it.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(square, (size, size), dst=out, interpolation=method))


class _Header(NamedTuple):
    format: str
    width: int
    height: int
    turn: int
    """EXIF orientation."""


def _plain_jpeg(data: bytes) -> _Header | None:
    """The header of a whole JPEG that has nothing but a JFIF segment, tables and one frame before its scan; else None.

    Most photographs are such. An EXIF segment may stand behind the frame as well, so the walk goes on to the scan.
    """
    if not data.startswith(_JPEG_PLAIN) or not data.endswith(_JPEG_END):
        return None
    at, frame = 2, b""
    while (marker := data[at : at + 2]) in _JPEG_TABLES or (marker in _JPEG_FRAMES and not frame):
        if marker in _JPEG_FRAMES:
            frame = data[at + 5 : at + 9]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if marker != _JPEG_SCAN:
        return None
    height, width = int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:], "big")
    return _Header("JPEG", width, height, 1) if width and height else None


def _read_by_pillow(data: bytes, limits: Limits) -> _Header:
    opened = _open(data)
    header = _Header(str(opened.format), *opened.size, _orientation(opened))
    _check_size(header, limits)  # before Pillow may have to decode it
    _check_whole(opened, data)
    return header


def _open(data: bytes) -> ImageFile:
    plugin = next((kind for magic, kind in _PLUGINS if data.startswith(magic)), None)
    if plugin is None:
        start = data[:8].hex(" ") or "nothing"
        raise ImageError("not an image", f"it starts with {start}; JPEG, PNG, WebP and BMP are read.")
    try:
        return plugin(io.BytesIO(data))
    except _BROKEN as error:
        cut = plugin is JpegImagePlugin.JpegImageFile and not _jpeg_ends(data)
        reason: Fault = "truncated" if cut else "not an image"
        raise ImageError(reason, f"its header cannot be read ({error}).") from error


def _check_size(header: _Header, limits: Limits) -> None:
    width, height = header.width, header.height
    if width * height > limits.max_pixels:
        raise ImageError("decompression bomb", f"{width}×{height} px; at most {limits.max_pixels} px are decoded.")
    if min(width, height) < limits.min_side:
        raise ImageError("too small", f"{width}×{height} px; each side must have at least {limits.min_side} px.")


def _check_whole(opened: ImageFile, data: bytes) -> None:
    """Refuse a picture that stops early: OpenCV would fill the rest with grey and say nothing.

    A JPEG that has its end marker where it belongs is whole; for all else Pillow's strict decoder decides.
    """
    if opened.format == "JPEG" and _jpeg_ends(data):
        return
    try:
        opened.load()
    except _BROKEN as error:
        raise ImageError("truncated", f"its {opened.format} data stops early ({error}).") from error


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG whose header can be read has its end marker, found by walking the segments (ITU-T T.81, B).

    Bytes may follow it. A search for any FF D9 would be fooled by a thumbnail inside the EXIF segment; one at the
    very end of the file is no thumbnail's, since the header went on behind it.
    """
    if data.endswith(_JPEG_END):
        return True
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        at = marker.end()
        if marker[0] == _JPEG_END:
            return True
        if marker[0] not in _JPEG_BARE:
            at += int.from_bytes(data[at : at + 2], "big")
    return False


def _orientation(opened: ImageFile) -> int:
    try:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        return 1  # a damaged EXIF block says nothing about the picture


def _upright(image: Image, turn: int) -> Image:
    """Undo the EXIF orientations 2 to 8; any other value leaves the picture as it is."""
    turned: Any = image
    if turn in (5, 6, 7, 8):
        turned = turned.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if turn in (3, 4, 7, 8):
        turned = turned[::-1]
    return image if turned is image else np.ascontiguousarray(turned)


def data_uri(picture: Image, side: int, quality: int = 85) -> str:
    """A square RGB picture as a JPEG inside an address, at most `side` px wide, for pages that ask for nothing."""
    side = min(side, picture.shape[0])
    small = cv2.resize(np.ascontiguousarray(picture), (side, side), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode()
