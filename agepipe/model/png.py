"""PNG files: header, and a check that the picture is complete without holding it in memory."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from agepipe.core.errors import ImageError
from agepipe.model.headers import Header, turn_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks that the picture needs; all others are removed, because the decoder would decompress them."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel, by colour type."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps across and down, of the passes of an interlaced picture (Adam7)."""
_PIECE = 1 << 20
"""Bytes that are decompressed at a time."""
_MOST_TEXT = 1 << 20
"""Maximum bytes that are decompressed of a text chunk, which may contain an orientation."""
_XMP, _RAW = b"XML:com.adobe.xmp\0", (b"Raw profile type exif\0", b"Raw profile type APP1\0")


class Png(NamedTuple):
    """A file with intact chunks."""

    turn: int
    """EXIF orientation."""
    lines: int
    """Bytes of the decompressed picture: all lines with their filter bytes."""
    chunks: list[tuple[bytes, int, int]]
    """Type, and start and end of the content."""


def header(data: bytes) -> Header:
    """Size and format, from the first chunk alone.

    Raises:
        ImageError: the header is malformed or truncated.
    """
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if len(data) < 33:
        raise ImageError("truncated", f"its PNG header stops early, after {len(data)} bytes.")
    if data[12:16] != b"IHDR" or data[25] not in _SAMPLES or not (width and height):
        raise ImageError("not an image", f"its PNG header announces {width}×{height} px of kind {data[25]}.")
    return Header("PNG", width, height)


def read(data: bytes) -> Png:
    """Read the chunks and verify their checksums; the picture is not decompressed.

    Raises:
        ImageError: the file is damaged or truncated.
    """
    _, width, height, *_ = header(data)
    chunks = list(_chunks(data))
    bits = data[24] * _SAMPLES[data[25]]
    parts = _PASSES if data[28] else ((0, 0, 1, 1),)
    lines = sum(_part(width - x, across, height - y, down, bits) for x, y, across, down in parts)
    return Png(_turn(data, chunks), lines, chunks)


def _part(width: int, across: int, height: int, down: int, bits: int) -> int:
    columns, rows = max(0, -(-width // across)), max(0, -(-height // down))
    return rows * (1 + (columns * bits + 7) // 8) if columns else 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = len(SIGNATURE)
    while True:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        start, end = at + 8, at + 8 + length
        if end + 4 > len(data):
            raise ImageError("truncated", f"its PNG data stops early, after {len(data)} bytes.")
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageError("damaged", f"its PNG data is damaged: the sum of the part at byte {at} is wrong.")
        yield kind, start, end
        if kind == b"IEND":
            return
        at = end + 4


def _turn(data: bytes, chunks: list[tuple[bytes, int, int]]) -> int:
    exif: bytes | None = None
    xmp: bytes | None = None
    raw: bytes | None = None
    for kind, start, end in chunks:  # only the first of each type, even an empty one: thousands would take minutes
        if kind == b"eXIf" and exif is None:
            exif = data[start:end]
        elif kind == b"iTXt" and xmp is None and data.startswith(_XMP, start):
            xmp = _text(data[start + len(_XMP) : end])
        elif kind in (b"zTXt", b"tEXt") and raw is None and data.startswith(_RAW, start):
            raw = _raw_profile(data[start:end].partition(b"\0")[2], packed=kind == b"zTXt")
    found = exif or raw or b""
    return turn_of(found, xmp or b"") if found or xmp else 1


def _text(body: bytes) -> bytes:
    """The text of an iTXt chunk, after its compression flag, method, language and translated keyword."""
    text = body[2:].split(b"\0", 2)[-1]
    return _unpacked(text) if body[:1] == b"\1" else text


def _raw_profile(body: bytes, *, packed: bool) -> bytes:
    """An EXIF block in ImageMagick's form: a line each with name and length, then hexadecimal digits."""
    lines = (_unpacked(body[1:]) if packed else body).split(b"\n")[3:]
    try:
        return bytes.fromhex(b"".join(lines).decode("ascii"))
    except ValueError:
        return b""  # a damaged block is ignored, because the picture does not depend on it


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, _MOST_TEXT)
    except zlib.error:
        return b""


def check_whole(data: bytes, png: Png) -> None:
    """Decompress the picture piece by piece and count its bytes.

    Raises:
        ImageError: it has fewer bytes than the header announces, or is damaged.
    """
    unpack, found = zlib.decompressobj(), 0
    try:
        for kind, start, end in png.chunks:
            if kind == b"IDAT" and found <= png.lines:  # including the checksum after the picture
                found += _unpacked_size(unpack, data[start:end], png.lines - found)
    except zlib.error as error:
        raise ImageError("damaged", f"its PNG data cannot be unpacked ({error}).") from error
    if found < png.lines:
        raise ImageError("truncated", f"its PNG data stops early: {found} of {png.lines} bytes are there.")


def _unpacked_size(unpack: "zlib._Decompress", packed: bytes, least: int) -> int:
    """Number of decompressed bytes, counted until there are more than `least`."""
    found = 0
    while found <= least:
        piece = len(unpack.decompress(packed, _PIECE))
        packed, found = unpack.unconsumed_tail, found + piece
        if not packed and piece < _PIECE:
            break
    return found


def plain(data: bytes, png: Png) -> bytes:
    """The file without the chunks that the picture does not need."""
    if all(kind in _NEEDED for kind, _, _ in png.chunks):
        return data
    return SIGNATURE + b"".join(data[start - 8 : end + 4] for kind, start, end in png.chunks if kind in _NEEDED)
