"""Journal of an unfinished ingest, so that a killed one resumes and writes the same bytes.

A chunk is finished once its ledger file has its final name; its pictures are written before that. When an ingest
resumes, pictures after the last finished chunk are cut off. Of the finished chunks only the content digests are kept in
memory, 32 bytes each.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.core.artifacts import partial, reserve
from agepipe.data.examine import LEDGER, Examined
from agepipe.data.pixel_store import PixelWriter


class Journal:
    """Finished chunks: their pictures in `folder/pixels.npy`, and a ledger file of each in `partial(folder)`."""

    def __init__(self, folder: Path, size: int) -> None:
        self._ledger = partial(folder)
        self._ledger.mkdir(parents=True, exist_ok=True)
        self._count = 0
        self.files = 0
        """Number of files in the finished chunks."""
        self._contents = set[bytes]()
        while (path := self._path(self._count)).exists():
            self._note(pl.read_ipc(path, columns=["digest", "reason"]))
        self._pixels = PixelWriter(folder / "pixels.npy", size, rows=self.pictures)

    @property
    def pictures(self) -> int:
        """Number of pictures in the store, which holds each content once."""
        return len(self._contents)

    def _note(self, chunk: pl.DataFrame) -> None:
        """Count a finished chunk, and remember its contents."""
        self._count += 1
        self.files += len(chunk)
        self._contents.update(_digests(chunk))

    def _path(self, position: int) -> Path:
        return self._ledger / f"{position:06d}.arrow"

    def add(self, examined: Examined) -> None:
        """Write the next chunk atomically; of files with the same content one picture is stored."""
        digests = _digests(examined.ledger)
        first = {digest: at for at, digest in reversed(list(enumerate(digests))) if digest not in self._contents}
        self._pixels.append(examined.pixels if len(first) == len(digests) else examined.pixels[sorted(first.values())])
        self._pixels.flush()
        path = self._path(self._count)
        examined.ledger.write_ipc(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        self._note(examined.ledger)

    def close(self) -> None:
        """Finish the pixel store; no chunk may be added afterwards."""
        self._pixels.finish()
        self._contents.clear()

    def ledger(self, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of the whole ledger, one row a file, in the source's order."""
        schema = {name: LEDGER[name] for name in columns}
        chunks = [self._read(number, columns) for number in range(self._count)]
        return pl.concat([pl.DataFrame(schema=schema), *chunks], rechunk=True)

    def _read(self, number: int, columns: Sequence[str]) -> pl.DataFrame:
        return pl.read_ipc(self._path(number), columns=list(columns))

    def thumbnails(self, side: int) -> NDArray[np.uint8]:
        """The thumbnail of each picture, in the order of the pixel store, as a memory map, uint8 `(n, side, side)`."""
        rows = self.ledger(["digest", "reason"])
        first = rows.get_column("digest").is_first_distinct() & rows.get_column("reason").is_null()
        path, start, row = self._ledger / "thumbnails.npy", 0, 0
        found = np.lib.format.open_memmap(path, "w+", np.uint8, (max(1, int(first.sum())), side, side))
        with path.open("r+b") as file:
            reserve(file.fileno(), path.stat().st_size)
        for number in range(self._count):
            chunk = self._read(number, ["thumbnail"]).get_column("thumbnail")
            kept = b"".join(chunk.filter(first[start : start + len(chunk)]))
            part = np.frombuffer(kept, dtype=np.uint8).reshape(-1, side, side)
            found[row : row + len(part)] = part
            start, row = start + len(chunk), row + len(part)
        return found[:row]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pixels.__exit__(kind, error, trace)


def _digests(chunk: pl.DataFrame) -> list[bytes]:
    """Content digests of the photographs in a chunk, in order, 32 bytes each."""
    return chunk.filter(pl.col("reason").is_null()).get_column("digest").str.decode("hex").to_list()
