"""The pixel store: one `.npy` file of square pictures, written row after row and read through a memory map."""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from agepipe.core.errors import DataError

_KEPT = 32 << 20
"""Bytes last written that stay in the page cache; pages before them may be written to disk and evicted."""


def open_pixels(path: Path, size: int | None = None) -> NDArray[np.uint8]:
    """The store as a read-only memory map, uint8 `(count, size, size, 3)`, RGB.

    Args:
        path: the `.npy` file.
        size: side that it must have, px, if known.

    Raises:
        DataError: the file is missing, damaged, or of another shape.
    """
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a pixel store ({error}); ingest again.") from error
    side = pixels.shape[1] if size is None and pixels.ndim > 1 else size
    wanted = (*pixels.shape[:1], side, side, 3)
    if pixels.dtype != np.uint8 or pixels.shape != wanted:
        raise DataError(f"{path}: holds {pixels.dtype} {pixels.shape}, but uint8 {wanted} is expected; ingest again.")
    return cast(NDArray[np.uint8], pixels)


class PixelWriter:
    """Appends pictures to a store; `finish` writes the number of rows into the header.

    A writer that opens an unfinished file continues after its first `rows` rows and discards the others.
    """

    def __init__(self, path: Path, size: int, rows: int = 0) -> None:
        self._size = size
        self._rows = rows
        self._start = len(_header(0, size))
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        end = self._start + rows * size * size * 3
        if rows and os.fstat(self._file.fileno()).st_size < end:
            self._file.close()
            raise DataError(f"{path}: shorter than the {rows} rows that were written to it; delete its folder.")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, pictures: NDArray[np.uint8]) -> None:
        """Append pictures, uint8 `(n, size, size, 3)`.

        Raises:
            DataError: another type or shape.
        """
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (self._size, self._size, 3):
            raise DataError(f"pixel store of {self._size} px: cannot hold {pictures.dtype} {pictures.shape}.")
        self._file.write(np.ascontiguousarray(pictures).data)
        self._rows += len(pictures)
        self._evict()

    def _evict(self) -> None:
        """Advise the system to evict pages written long ago, because reusing memory is faster than finding free pages.

        The call does not block: pages that a slow disk has not written yet stay in memory.
        """
        if hasattr(os, "posix_fadvise"):
            behind = max(0, self._file.tell() - _KEPT)
            os.posix_fadvise(self._file.fileno(), max(0, behind - _KEPT), min(behind, _KEPT), os.POSIX_FADV_DONTNEED)

    def flush(self) -> None:
        """Flush appended pictures to the operating system."""
        self._file.flush()

    def finish(self) -> None:
        """Write the header, which makes the file a complete `.npy`."""
        self._file.seek(0)
        self._file.write(_header(self._rows, self._size))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _header(rows: int, size: int) -> bytes:
    """The `.npy` header; its length is fixed, because numpy pads it and leaves room for more rows."""
    out = io.BytesIO()
    npy.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size, 3)})
    return out.getvalue()
