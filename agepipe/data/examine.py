"""Turn a file of a source into a catalogue row with its picture, or into a reject with its reason. Writes nothing."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.stages import IngestSettings
from agepipe.core.errors import ImageError
from agepipe.data import duplicates
from agepipe.data.archives import Entry, too_large
from agepipe.data.filenames import Reject, class_folder, parse, unknown_name
from agepipe.model import phash
from agepipe.model.imaging import SUFFIXES, Image, Limits, fit, photograph

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
"""Columns of the ledger, which has one row a file in the source's order.

A reject has only `path`, `reason` and `detail`; a photograph has neither `reason` nor `detail`.
"""

_TOGETHER = 16
"""Pictures that are measured at a time; few enough to fit the processor's cache."""


class Examined(NamedTuple):
    """The results of `examine` for some files."""

    ledger: pl.DataFrame
    """One row a file, in order: the columns of `LEDGER`."""
    pixels: NDArray[np.uint8]
    """Pictures of the usable files, in order, uint8 `(usable, size, size, 3)`."""


def examine(entries: Sequence[Entry], settings: IngestSettings, room: NDArray[np.uint8]) -> Examined:
    """Read, check, decode and measure some files; the order is kept. Safe to call from several threads.

    Args:
        entries: the files.
        settings: size and limits.
        room: buffer for the pictures, uint8 `(at least len(entries), size, size, 3)`; reusing one buffer is faster than
            allocating a new one.
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
    """Add brightness, sharpness, perceptual hash and thumbnail to the rows; batches need far fewer calls."""
    usable = [row for row in rows if "reason" not in row]
    scratch = _Scratch.of(pixels.shape[1])
    for start in range(0, len(usable), _TOGETHER):
        luma = phash.luma(pixels[start : start + _TOGETHER])
        light = zip(*_light(luma, scratch), strict=True)
        small = phash.halved(luma)
        measured = zip(light, phash.perceptual_hashes(small), duplicates.thumbnails(small), strict=True)
        for row, ((brightness, sharpness), hash_, thumbnail) in zip(usable[start:], measured, strict=False):
            row.update(brightness=brightness, sharpness=sharpness, look=hash_, thumbnail=thumbnail.tobytes())


def _row(entry: Entry, settings: IngestSettings, limits: Limits, out: Image) -> dict[str, Any]:
    """The row of one file: of a photograph, whose picture is written to `out`, or of a reject."""
    label = refusal(entry, settings) or parse(entry.name, settings.min_age, settings.max_age)
    if isinstance(label, Reject):
        return {"path": entry.path, **label._asdict()}
    try:
        data = entry.read()
        found = photograph(data, limits)
    except OSError as error:
        return {"path": entry.path, "reason": "unreadable", "detail": error.strerror or str(error)}
    except ImageError as error:
        return {"path": entry.path, "reason": error.reason, "detail": error.detail}
    if fit(found.image, settings.size, out) is not out:
        out[...] = fit(found.image, settings.size)
    return {
        "path": entry.path, **label._asdict(), "folder": class_folder(entry.folder),
        "digest": sha256(data).hexdigest(), "width": found.width, "height": found.height,
    }  # fmt: skip


def refusal(entry: Entry, settings: IngestSettings) -> Reject | None:
    """The reject of a file that its path, name or size rules out, so that it need not be read; None for any other."""
    if entry.reject is not None:
        return entry.reject
    if not entry.name.lower().endswith(SUFFIXES):
        return Reject("not an image", unknown_name(entry.name, SUFFIXES))
    return too_large(entry, Limits(settings.min_side, settings.max_pixels))


class _Scratch(NamedTuple):
    """Buffers of `_light` for `_TOGETHER` pictures; allocating them for each batch takes longer than computing."""

    grey: NDArray[np.int16]
    bends: NDArray[np.int16]
    inside: NDArray[np.float32]

    @classmethod
    def of(cls, size: int) -> Self:
        """Buffers for pictures of this side, px."""
        shape = (_TOGETHER, size, size)
        return cls(np.empty(shape, np.int16), np.empty(shape, np.int16), np.empty(shape, np.float32))


def _light(luma: NDArray[np.uint8], scratch: _Scratch) -> tuple[list[float], list[float]]:
    """Mean of each grey picture in [0, 1], and variance of its Laplacian inside the border (grey levels, squared).

    Args:
        luma: uint8 `(at most _TOGETHER, size, size)`.
        scratch: buffers, which are overwritten.
    """
    count, size = luma.shape[:2]
    bends = _laplacian(luma, scratch).reshape(count, -1)
    inside = (size - 2) ** 2
    sharpness = np.einsum("ij,ij->i", bends, bends) / inside - (np.einsum("ij->i", bends) / inside) ** 2
    brightness = cv2.reduce(luma.reshape(count, -1), 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] / 255
    return brightness.tolist(), sharpness.tolist()


def _laplacian(luma: NDArray[np.uint8], scratch: _Scratch) -> NDArray[np.float32]:
    """Sum of the four neighbours less four times the middle, float32 `(n, size, size)`, 0 on the border.

    All pictures are treated as one long row of integers, which is far faster than OpenCV's Laplacian.
    """
    count, size = luma.shape[:2]
    grey, bends = (part[:count].reshape(-1) for part in scratch[:2])
    np.copyto(grey, luma.reshape(-1))
    middle = bends[size:-size]
    np.multiply(grey[size:-size], -4, out=middle)
    for shift in (-size, -1, 1, size):
        middle += grey[size + shift : len(grey) - size + shift]
    found = scratch.inside[:count]
    np.copyto(found, bends.reshape(found.shape))
    found[:, 0] = found[:, -1] = 0  # here the neighbours belong to another picture or row
    found[:, :, 0] = found[:, :, -1] = 0
    return found
