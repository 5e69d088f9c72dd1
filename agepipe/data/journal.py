"""The half-done ingest: which files are finished, so that a killed one goes on and ends with the same bytes.

A chunk counts once its ledger file has its final name; its pictures were written before that. Pictures beyond the
last counted chunk are cut off when the work goes on.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from agepipe.core.artifacts import partial
from agepipe.data.examine import LEDGER, Examined
from agepipe.data.pixel_store import PixelWriter


class Journal:
    """Finished chunks: their pictures in `folder/pixels.npy`, and one file each in `partial(folder)`."""

    def __init__(self, folder: Path, size: int) -> None:
        self._ledger = partial(folder)
        self._ledger.mkdir(parents=True, exist_ok=True)
        self._chunks = self._finished()
        self.files = sum(len(chunk) for chunk in self._chunks)
        """Files that need not be looked at again."""
        self._contents = {digest for chunk in self._chunks for digest in _digests(chunk)}
        self._pixels = PixelWriter(folder / "pixels.npy", size, rows=self.pictures)

    @property
    def pictures(self) -> int:
        """Pictures in the store: one for each content among the photographs."""
        return len(self._contents)

    def _finished(self) -> list[pl.DataFrame]:
        """The chunks up to the first that is missing."""
        chunks: list[pl.DataFrame] = []
        while (path := self._path(len(chunks))).exists():
            chunks.append(pl.read_ipc(path))
        return chunks

    def _path(self, position: int) -> Path:
        return self._ledger / f"{position:06d}.arrow"

    def add(self, examined: Examined) -> None:
        """Keep the next chunk; it is there whole or not at all. Of files with the same content one picture is kept."""
        digests = _digests(examined.ledger)
        first = {digest: at for at, digest in reversed(list(enumerate(digests))) if digest not in self._contents}
        self._pixels.append(examined.pixels if len(first) == len(digests) else examined.pixels[sorted(first.values())])
        self._pixels.flush()
        path = self._path(len(self._chunks))
        examined.ledger.write_ipc(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        self._chunks.append(examined.ledger)
        self.files += len(examined.ledger)
        self._contents.update(first)

    def close(self) -> pl.DataFrame:
        """End the pixel store, and give the whole ledger, one row a file, in the source's order."""
        self._pixels.finish()
        return pl.concat(self._chunks) if self._chunks else pl.DataFrame(schema=LEDGER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pixels.__exit__(kind, error, trace)


def _digests(chunk: pl.DataFrame) -> list[str]:
    """Content digests of the photographs in a chunk, in order."""
    return chunk.filter(pl.col("reason").is_null()).get_column("digest").to_list()
