"""One file of a source becomes a catalogue row with its picture, or a reject with its reason. Touches no disk."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config import IngestSettings
from agepipe.data import duplicates
from agepipe.data.archives import Entry
from agepipe.data.utkface import Reject, class_folder, parse
from agepipe.errors import ImageError
from agepipe.imaging import SUFFIXES, Image, Limits, decode, fit

LEDGER: dict[str, Any] = {
    "path": pl.String,
    "age": pl.UInt8,
    "gender": pl.Int8,
    "race": pl.Int8,
    "folder": pl.String,
    "digest": pl.String,
    "width": pl.UInt32,
    "height": pl.UInt32,
    "brightness": pl.Float32,
    "sharpness": pl.Float32,
    "look": pl.Binary,
    "thumbnail": pl.Binary,
    "reason": pl.String,
    "detail": pl.String,
}
"""One row a file, in the source's order; a reject has only its path, reason and detail, a photograph all but these."""

_BYTES_PER_PIXEL = 4
"""A file with more bytes than the largest allowed picture has uncompressed is no photograph."""


class Examined(NamedTuple):
    """What became of some files."""

    ledger: pl.DataFrame
    """One row a file, in order: the columns of `LEDGER`."""
    pixels: NDArray[np.uint8]
    """The pictures of the usable ones, in order, `(usable, size, size, 3)`."""


def examine(entries: Sequence[Entry], settings: IngestSettings, room: NDArray[np.uint8]) -> Examined:
    """Read, check, decode and measure some files; the order is kept. Safe to call from several threads.

    Args:
        entries: the files.
        settings: size and limits.
        room: where the pictures go, uint8 `(at least len(entries), size, size, 3)`; a caller that gives the same room
            again spares the system finding fresh memory.
    """
    limits = Limits(settings.min_side, settings.max_pixels)
    rows: list[dict[str, Any]] = []
    count = 0
    for entry in entries:
        row = _row(entry, settings, limits, room[count])
        rows.append(row)
        count += "reason" not in row
    _measure(rows, room[:count])
    ledger = pl.DataFrame({name: [row.get(name) for row in rows] for name in LEDGER}, schema=LEDGER)
    return Examined(ledger, room[:count])


def _measure(rows: Sequence[dict[str, Any]], pixels: NDArray[np.uint8]) -> None:
    """Add to the rows of photographs what is measured on all their pictures together, which takes far fewer calls."""
    luma = duplicates.luma(pixels)
    usable = (row for row in rows if "reason" not in row)
    measured = zip(*_light(luma), duplicates.looks(luma), duplicates.thumbnails(luma), strict=True)
    for row, (brightness, sharpness, look, thumbnail) in zip(usable, measured, strict=True):
        row.update(brightness=brightness, sharpness=sharpness, look=look, thumbnail=thumbnail.tobytes())


def _row(entry: Entry, settings: IngestSettings, limits: Limits, out: Image) -> dict[str, Any]:
    """The row of a photograph, whose picture is written to `out`, or of a reject with its reason and detail."""
    label = refusal(entry, settings) or parse(entry.name, settings.min_age, settings.max_age)
    if isinstance(label, Reject):
        return {"path": entry.path, **label._asdict()}
    try:
        data = entry.read()
        image = decode(data, limits)
    except OSError as error:
        return {"path": entry.path, "reason": "unreadable", "detail": error.strerror or str(error)}
    except ImageError as error:
        return {"path": entry.path, "reason": error.reason, "detail": error.detail}
    if fit(image, settings.size, out) is not out:
        out[...] = fit(image, settings.size)
    height, width = image.shape[:2]
    return {
        "path": entry.path, **label._asdict(), "folder": class_folder(entry.folder),
        "digest": sha256(data).hexdigest(), "width": width, "height": height,
    }  # fmt: skip


def refusal(entry: Entry, settings: IngestSettings) -> Reject | None:
    """Why a file need not be read at all, as far as its place, name and size tell."""
    if entry.reject is not None:
        return entry.reject
    if not entry.name.lower().endswith(SUFFIXES):
        return Reject("not an image", f"files ending in {', '.join(SUFFIXES)} are read.")
    if entry.size > _BYTES_PER_PIXEL * settings.max_pixels:
        return Reject("decompression bomb", f"{entry.size} bytes; no allowed picture takes so many.")
    return None


def _light(luma: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean of each grey picture in [0, 1], and variance of its Laplacian inside the border (grey levels, squared).

    Args:
        luma: uint8 `(n, size, size)`; its Laplacian is taken of all pictures at once, as one tall picture, and the
            rows in which two of them meet are left out.
    """
    count, size = luma.shape[:2]
    if count == 0:
        return [], []
    bends = cv2.Laplacian(luma.reshape(count * size, size), cv2.CV_32F).reshape(count, size, size)
    bends[:, [0, -1]] = bends[:, :, [0, -1]] = 0
    flat = bends.reshape(count, -1)
    inside = (size - 2) ** 2
    sharpness = np.einsum("ij,ij->i", flat, flat) / inside - (flat.sum(axis=1) / inside) ** 2
    brightness = cv2.reduce(luma.reshape(count, -1), 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] / 255
    return brightness.tolist(), sharpness.tolist()
