"""Headers of picture files: format, size, orientation and memory for decoding, without decoding the picture."""

import re
import struct
from typing import Literal, NamedTuple

from PIL import ExifTags
from PIL.Image import Exif

from agepipe.core.errors import ImageError

Fault = Literal["not an image", "truncated", "damaged", "too small", "too large"]

PILLOW_ERRORS = (SyntaxError, OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error)
"""What Pillow raises over damaged files."""
_XMP_TURN = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_FTYP = b"ftyp"
_BRANDS = {
    b"avif": "an AVIF picture", b"avis": "an AVIF picture", b"crx ": "a raw photograph",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC picture"),
}  # fmt: skip
_STARTS = {
    b"GIF8": "a GIF picture", b"FUJIFILM": "a raw photograph",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "a TIFF picture or a raw photograph"),
    b"\xff\x0a": "a JPEG XL picture", b"\0\0\0\x0cJXL ": "a JPEG XL picture", b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"\xff\x4f\xff\x51": "a JPEG 2000 picture", b"8BPS": "a Photoshop file", b"%PDF": "a PDF file",
    b"\0\0\1\0": "an icon", b"PK\3\4": "a zip archive", b"\x1a\x45\xdf\xa3": "a video", b"<": "text or an SVG drawing",
}  # fmt: skip


class Header(NamedTuple):
    """The header of a picture file."""

    format: str
    width: int
    """As stored, px, before the orientation is applied."""
    height: int
    turn: int = 1
    """EXIF orientation."""
    working: int = 0
    """Bytes of memory that decoding takes besides the picture itself."""


def turn_of(exif: bytes, xmp: bytes) -> int:
    """The orientation in an EXIF block, else in an XMP block, else 1; a damaged block is ignored."""
    block = Exif()
    try:
        block.load(exif)
        return int(block[ExifTags.Base.Orientation])
    except PILLOW_ERRORS:
        found = _XMP_TURN.search(xmp)
        return int(found[1]) if found else 1


def webp(data: bytes) -> Header:
    """The header of a WebP.

    Raises:
        ImageError: the file is truncated, or contains no picture.
    """
    chunks = dict[bytes, int]()
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    while at + 8 <= min(end, len(data)):
        chunks.setdefault(data[at : at + 4], at + 8)
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    if len(data) < end or at > end + 1:
        raise ImageError("truncated", f"its WEBP data stops early: {len(data)} of {max(end, at)} bytes are there.")
    width, height = _webp_size(data, chunks)
    exif, xmp = (_webp_body(data, chunks, name) for name in (b"EXIF", b"XMP "))
    return Header("WEBP", width, height, turn_of(exif, xmp), working=6 * width * height)


def _webp_size(data: bytes, chunks: dict[bytes, int]) -> tuple[int, int]:
    number = int.from_bytes
    if (at := chunks.get(b"VP8X")) is not None:
        return number(data[at + 4 : at + 7], "little") + 1, number(data[at + 7 : at + 10], "little") + 1
    if (at := chunks.get(b"VP8L")) is not None:
        bits = number(data[at + 1 : at + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if (at := chunks.get(b"VP8 ")) is not None:
        return number(data[at + 6 : at + 8], "little") & 0x3FFF, number(data[at + 8 : at + 10], "little") & 0x3FFF
    raise ImageError("not an image", "it is a RIFF file, but holds no WebP picture.")


def _webp_body(data: bytes, chunks: dict[bytes, int], name: bytes) -> bytes:
    at = chunks.get(name)
    return b"" if at is None else data[at : at + int.from_bytes(data[at - 4 : at], "little")]


def unknown(data: bytes) -> ImageError:
    """The error for content that is no JPEG, PNG, WebP or BMP; it names other common formats."""
    kind = "empty" if not data else _kind(data)
    if kind:
        return ImageError("not an image", f"it is {kind}; convert it to JPEG (JPEG, PNG, WebP and BMP are read).")
    return ImageError("not an image", f"it starts with {data[:8].hex(' ')}; JPEG, PNG, WebP and BMP are read.")


def _kind(data: bytes) -> str:
    if data[4:8] == _FTYP:
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(data[3], 64), 4))]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return max(known, default="a video")  # "an AVIF" is the maximum: AVIF files list HEIC's general brands as well
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), "")
