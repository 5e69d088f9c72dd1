"""JPEG files (ITU-T T.81): header, and strict decoding, also at a half, a quarter or an eighth of the sides.

libjpeg repairs damage and continues with a warning, which OpenCV and Pillow ignore. simplejpeg, which decodes the same
pixels with the same library, reports the first warning. This module also detects damage without a warning: missing
scans and holes of zeros.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from agepipe.core.errors import ImageError
from agepipe.model.headers import Header, turn_of

_SCAN, _END, _TABLES, _APP1 = b"\xff\xda", b"\xff\xd9", b"\xff\xc4", b"\xff\xe1"
_FRAMES = frozenset(bytes((0xFF, code)) for code in range(0xC0, 0xD0)) - {_TABLES, b"\xff\xc8", b"\xff\xcc"}
_SEQUENTIAL = frozenset({b"\xff\xc0", b"\xff\xc1"})
"""Baseline and extended frames with Huffman codes."""
_PROGRESSIVE = frozenset({b"\xff\xc2", b"\xff\xca"})
_BARE = frozenset({b"\xff\x01", *(bytes((0xFF, code)) for code in range(0xD0, 0xD8))})
"""Markers without a segment."""
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The end of the coded data of a scan."""
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

_BLOCK_BYTES = 128
"""Bytes of the coefficients of a block, which a decoder of several scans holds for the whole picture."""
_BLOCK_BITS = 2
"""Minimum bits of a block in a sequential scan: one for its mean, one for the end of the block."""
_MOST_SCANS = 200
"""Maximum number of scans, more than encoders write; each costs a pass over the whole picture."""
_HOLE = bytes(32)
"""A run of zeros that covers a whole block, which no encoder writes unless zeros code an even area."""
_HARMLESS = ("unknown JFIF revision", "nknown Adobe color transform", "Invalid SOS parameters", "subsampling")
"""Warnings about unusual headers of complete pictures; OpenCV decodes them, though not strictly."""
_WARNINGS = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")
_CUT = ("Premature end", "premature end")
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class Jpeg(NamedTuple):
    """The parts of a JPEG header that decoding needs."""

    header: Header
    frame: bytes
    """Marker of the frame."""
    components: dict[int, tuple[int, int]]
    """Horizontal and vertical sampling by component number."""
    tables: list[bytes]
    """Contents of the segments with Huffman tables."""
    scan: int
    """Offset of the first scan, bytes."""
    scans: bool
    """Whether there are several scans, so that the decoder holds all coefficients in memory."""


def read(data: bytes) -> Jpeg:
    """Read the header: everything before the first scan.

    Raises:
        ImageError: the header is damaged or truncated.
    """
    kind, frame, exif, xmp = b"", b"", b"", b""
    tables = list[bytes]()
    for marker, start, end in _segments(data, 2):
        body = data[start:end]
        if marker == _SCAN:
            break
        if marker == _END:
            raise _bad_header(data, start)
        if marker in _FRAMES and not kind:
            kind, frame = marker, body
        elif marker == _TABLES:
            tables.append(body)
        elif marker == _APP1:
            exif = exif or (body if body.startswith(_EXIF) else b"")
            xmp = xmp or (body if body.startswith(_XMP) else b"")
    components = {frame[n]: (frame[n + 1] >> 4, frame[n + 1] & 15) for n in range(6, len(frame) - 2, 3)}
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if not (width and height and components and all(h and v for h, v in components.values())):
        raise ImageError(
            "not an image", f"its JPEG header announces {width}×{height} px of {len(components)} components."
        )
    scans = kind in _PROGRESSIVE or body[:1] != bytes((len(components),))
    blocks = _blocks(width, height, list(components.values()))
    if kind in _SEQUENTIAL and blocks * _BLOCK_BITS > 8 * len(data):
        raise ImageError("truncated", f"{width}×{height} px are announced, which {len(data)} bytes cannot hold.")
    turn = turn_of(exif, xmp) if exif or xmp else 1
    header = Header("JPEG", width, height, turn, blocks * _BLOCK_BYTES if scans else 0)
    return Jpeg(header, kind, components, tables, start - 4, scans)


def _segments(data: bytes, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Marker, start and end of the content of each segment, up to the end marker; coded data of scans is skipped.

    Raises:
        ImageError: a segment does not begin with a marker, or there is no end marker.
    """
    while (marker := data[at : at + 2]) != _END:
        if marker[:1] != b"\xff" or len(marker) < 2 or marker == b"\xff\0":
            raise _bad_header(data, at)
        if marker == b"\xff\xff" or marker in _BARE:
            at += 1 if marker == b"\xff\xff" else 2
            continue
        start, end = at + 4, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, start, end
        if marker == _SCAN:
            found = _MARKER.search(data, end)
            if found is None or end - start < 6:
                raise ImageError("truncated", "its JPEG data stops early: it has no end marker.")
            end = found.start()
        at = end
    yield _END, at, at


def _bad_header(data: bytes, at: int) -> ImageError:
    if at + 2 > len(data):
        return ImageError("truncated", f"its JPEG header stops early, after {len(data)} bytes.")
    return ImageError(
        "damaged", f"its JPEG header has {data[at : at + 2].hex(' ')} at byte {at}, where a marker belongs."
    )


def _blocks(width: int, height: int, sampling: list[tuple[int, int]]) -> int:
    """Number of blocks of 8×8 samples, over all components."""
    most_h, most_v = (max(column) for column in zip(*sampling, strict=True))
    return sum(-(-width * h // (8 * most_h)) * -(-height * v // (8 * most_v)) for h, v in sampling)


def decode(data: bytes, jpeg: Jpeg, shrink: int = 1) -> NDArray[np.uint8]:
    """The picture as stored, uint8 RGB.

    Args:
        data: the file.
        jpeg: its header.
        shrink: 1, 2, 4 or 8: the divisor of the sides, which are rounded up.

    Raises:
        ImageError: the picture is incomplete, or cannot be decoded.
    """
    if jpeg.scans:
        _check_scans(data, jpeg)
    _check_hole(data, jpeg)
    four = len(jpeg.components) == 4
    try:
        image = _strict(data, jpeg, shrink, "cmyk" if four else "rgb")
    except ValueError as error:
        image = _after_warning(data, jpeg, shrink, str(error))
    return _by_opencv(data, shrink) if four else image


def _strict(data: bytes, jpeg: Jpeg, shrink: int, colours: str) -> NDArray[np.uint8]:
    least = (0, 0) if shrink == 1 else (-(-jpeg.header.height // shrink), -(-jpeg.header.width // shrink))
    found = simplejpeg.decode_jpeg(data, colours, min_height=least[0], min_width=least[1])
    return cast(NDArray[np.uint8], found)


def _after_warning(data: bytes, jpeg: Jpeg, shrink: int, said: str) -> NDArray[np.uint8]:
    """Decode a picture that the strict decoder refused with a harmless warning; raise an error after any other."""
    if said.startswith(_WARNINGS):
        cut = any(words in said for words in _CUT)
        raise ImageError("truncated" if cut else "damaged", f"its JPEG data is not whole ({said}).")
    if any(words in said for words in _HARMLESS):
        _check_scans(data, jpeg)
        return _by_opencv(data, shrink)
    raise ImageError("not an image", f"its header is that of a JPEG, but nothing can be decoded ({said}).")


def _by_opencv(data: bytes, shrink: int) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[shrink]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ImageError("not an image", "its header is that of a JPEG, but nothing can be decoded.")
    return cast(NDArray[np.uint8], image)


def _check_hole(data: bytes, jpeg: Jpeg) -> None:
    """Refuse a run of zeros inside a sequential scan, which an incomplete download or a faulty disk leaves."""
    at = data.find(_HOLE, jpeg.scan) if jpeg.frame in _SEQUENTIAL else -1
    if at < 0 or _zeros_are_flat(jpeg.tables):
        return
    following = next((start for _, start, end in _segments(data, jpeg.scan) if at < end), at)
    if at < following:  # between segments, so in the coded data of a scan
        raise ImageError("damaged", f"its JPEG data has a hole: zeros from byte {at} on.")


def _zeros_are_flat(tables: list[bytes]) -> bool:
    """Whether the shortest code of each table, which is all zeros, ends a block, so that zeros code an even area."""
    firsts = [first for segment in tables for first in _first_symbols(segment)]
    return bool(firsts) and not any(firsts)


def _first_symbols(tables: bytes) -> Iterator[int]:
    """The symbol with the shortest code in each table for coefficients other than the mean."""
    at = 0
    while at + 17 < len(tables):
        if tables[at] >> 4:
            yield tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])


def _check_scans(data: bytes, jpeg: Jpeg) -> None:
    """Refuse a file whose scans do not contain every coefficient of every component in full, or that has too many."""
    bits = {number: [1] * 64 for number in jpeg.components}
    scans = [data[start:end] for marker, start, end in _segments(data, jpeg.scan) if marker == _SCAN]
    if len(scans) > _MOST_SCANS:
        raise ImageError("too large", f"its JPEG data has more than {_MOST_SCANS} scans; save it again.")
    for scan in scans:
        first, last, low = (scan[-3], scan[-2], scan[-1] & 15) if jpeg.frame in _PROGRESSIVE else (0, 63, 0)
        for number in scan[1:-3:2]:
            if number in bits:
                bits[number][first : last + 1] = [low] * (min(last, 63) + 1 - first)
    if any(any(column) for column in bits.values()):
        raise ImageError("truncated", "its JPEG data stops early: scans are missing.")
