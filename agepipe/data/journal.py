"""Journal of an unfinished ingest, so that a killed one resumes and writes the same bytes.

A chunk is finished once its ledger file has its final name; its pictures are written before that. When an ingest
resumes, pictures after the last finished chunk are cut off.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from agepipe.core.artifacts import partial
from agepipe.data.examine import LEDGER, Examined
from agepipe.data.pixel_store import PixelWriter


class Journal:
    """Finished chunks: their pictures in `folder/pixels.npy`, and a ledger file of each in `partial(folder)`."""

    def __init__(self, folder: Path, size: int) -> None:
        self._ledger = partial(folder)
        self._ledger.mkdir(parents=True, exist_ok=True)
        self._chunks = self._finished()
        self.files = sum(len(chunk) for chunk in self._chunks)
        """Number of files in the finished chunks."""
        self._contents = {digest for chunk in self._chunks for digest in _digests(chunk)}
        self._pixels = PixelWriter(folder / "pixels.npy", size, rows=self.pictures)

    @property
    def pictures(self) -> int:
        """Number of pictures in the store, which holds each content once."""
        return len(self._contents)

    def _finished(self) -> list[pl.DataFrame]:
        """The ledgers of the finished chunks."""
        chunks: list[pl.DataFrame] = []
        while (path := self._path(len(chunks))).exists():
            chunks.append(pl.read_ipc(path))
        return chunks

    def _path(self, position: int) -> Path:
        return self._ledger / f"{position:06d}.arrow"

    def add(self, examined: Examined) -> None:
        """Write the next chunk atomically; of files with the same content one picture is stored."""
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
        """Finish the pixel store; returns the whole ledger, one row a file, in the source's order."""
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
