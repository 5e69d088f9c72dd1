"""Ingest a source into a catalogue: a table, a pixel store, and the rejects with their reasons.

Archives and folders are read in one pass. Threads decode, because OpenCV releases the interpreter's lock. Finished
chunks are journaled, so that a killed ingest resumes where it stopped and writes the same bytes. Memory grows with the
number of photographs by their rows of the table alone: pictures and thumbnails are in files.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings
from agepipe.core.artifacts import partial
from agepipe.core.errors import SourceError, TooManyRejectsError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data import archives, copies, duplicates, sources
from agepipe.data.archives import Entry
from agepipe.data.examine import Examined, examine, refusal
from agepipe.data.filenames import Reject
from agepipe.data.journal import Journal
from agepipe.data.records import Catalogue, Source

log = logging.getLogger(__name__)

SCHEMA: dict[str, Any] = {
    "index": pl.UInt32,
    "path": pl.String,
    "copies": pl.List(pl.String),
    "age": pl.UInt8,
    "gender": pl.Int8,
    "race": pl.Int8,
    "folder": pl.String,
    "digest": pl.String,
    "look": pl.Binary,
    "group": pl.String,
    "width": pl.UInt32,
    "height": pl.UInt32,
    "brightness": pl.Float32,
    "sharpness": pl.Float32,
}
"""Columns of the catalogue: `index` is the position in the pixel store, which holds each content once, and `copies`
lists the paths of further files with the same content and label; the others are those of `examine`."""
CONTENT = ("width", "height", "brightness", "sharpness", "look")
"""Columns that depend on the content of a file alone."""
REJECTS: dict[str, Any] = {"path": pl.String, "reason": pl.String, "detail": pl.String}
"""Columns of the rejects."""
VERSION = 5
"""Increased when the same files give another catalogue; part of its digest, because that covers no pixels."""

_CHUNK_PIXELS = 8 << 20
"""Bytes of pictures in a chunk: the unit of work, which a killed ingest repeats."""
_CHUNK_FILES = 32 << 20
"""Bytes of files after which a chunk ends early, so that large photographs do not fill the memory."""
_SHOWN = 5
"""Number of unreadable files and archives that are logged by name."""
_WAITING = 2
"""Chunks that are read ahead, so that no decoder waits while a chunk is read or written."""


def ingest(
    source: Source, settings: IngestSettings, folder: Path, runtime: Runtime, progress: Progress = silent
) -> Catalogue:
    """Decode each photograph of a source once, and write the catalogue.

    Args:
        source: from `agepipe.data.sources.fingerprint`.
        settings: size, limits and the threshold for near duplicates.
        folder: an empty folder, or the folder of an interrupted ingest of the same source and settings with its
            `agepipe.core.artifacts.partial`, which is resumed after the last finished chunk.
        runtime: how many threads decode.
        progress: called after each chunk, in bytes of the source.

    Raises:
        SourceError: an archive is damaged, or no file is a usable photograph.
        TooManyRejectsError: the share of rejects is above `settings.max_reject_share`.
    """
    with Journal(folder, settings.size) as journal:
        _read_all(source, settings, runtime, journal, progress)
        journal.close()
    return _tables(journal, source, settings, folder)


def without_limit(settings: IngestSettings) -> IngestSettings:
    """The settings that determine the content of a catalogue; `max_reject_share` only decides if it is accepted."""
    return settings.model_copy(update={"max_reject_share": 1.0})


def _read_all(source: Source, settings: IngestSettings, runtime: Runtime, journal: Journal, progress: Progress) -> None:
    """Read all files into the journal."""
    total = sum(_bytes(location) for location in source.locations)
    with _one_thread_each():
        chunks = _chunks(source, settings, journal.files)
        with closing(_examined(chunks, settings, runtime.worker_count)) as found:
            for examined, position in found:
                journal.add(examined)
                progress(min(position, total), total, f"{journal.pictures:,} different photographs")
    progress(total, total, f"{journal.pictures:,} different photographs")


def _bytes(location: Path) -> int:
    if location.is_dir():
        known = (found.status() for found in archives.walk(location))
        return sum(status.st_size for status in known if status is not None)
    return location.stat().st_size


def _chunks(source: Source, settings: IngestSettings, skip: int) -> Iterator[tuple[list[Entry], int]]:
    """Chunks of the files after the first `skip`, archive members already read, with the source's bytes up to each end.

    The ends of chunks depend on the files alone, not on where an earlier run was killed.
    """
    most = _most(settings)
    located = zip(source.locations, sources.prefixes(source), strict=True)
    every = chain.from_iterable(archives.entries(location, prefix) for location, prefix in located)
    chunk: list[Entry] = []
    position = start = 0
    for number, entry in enumerate(every):
        position += entry.size
        if number < skip:
            start = position
            continue
        chunk.append(entry if entry.at_any_time else _loaded(entry, settings))
        if len(chunk) == most or position - start > _CHUNK_FILES:
            yield chunk, position
            chunk, start = [], position
    if chunk:
        yield chunk, position


def _most(settings: IngestSettings) -> int:
    """Maximum number of files in a chunk."""
    return max(8, _CHUNK_PIXELS // (settings.size**2 * 3))


def _loaded(entry: Entry, settings: IngestSettings) -> Entry:
    """The entry with its content read into memory; unchanged if it is rejected anyway."""
    if refusal(entry, settings):
        return entry
    try:
        data = entry.read()
    except OSError as error:
        return replace(entry, reject=Reject("unreadable", str(error)))
    return Entry(entry.path, entry.size, lambda: data)


def _examined(
    chunks: Iterable[tuple[list[Entry], int]], settings: IngestSettings, workers: int
) -> Generator[tuple[Examined, int], None, None]:
    """Examine chunks in parallel and yield them in order; each must be used before the iterator is advanced."""
    pending: deque[tuple[Future[Examined], int]] = deque()
    most = workers + _WAITING
    # one for each pending chunk, and one for the chunk that the caller uses
    shape = (_most(settings), settings.size, settings.size, 3)
    room = cycle([np.empty(shape, dtype=np.uint8) for _ in range(most + 2)])
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for chunk, position in chunks:
            pending.append((pool.submit(examine, chunk, settings, next(room)), position))
            if len(pending) > most:
                future, end = pending.popleft()
                yield future.result(), end
        for future, end in pending:
            yield future.result(), end
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption the chunks that are read ahead are not decoded


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _tables(journal: Journal, source: Source, settings: IngestSettings, folder: Path) -> Catalogue:
    """Write the tables of photographs and rejects."""
    rejects = journal.ledger(list(REJECTS)).filter(pl.col("reason").is_not_null())
    rejects.write_parquet(folder / "rejects.parquet")
    usable = journal.files - len(rejects)
    _check_share(rejects, usable, settings, folder / "rejects.parquet")
    for path, _, detail in rejects.filter(pl.col("reason") == "unreadable").head(_SHOWN).rows():
        log.warning("%s is not used: %s", archives.printable(path), archives.printable(detail))
    catalogued = _catalogued(journal, settings, partial(folder))
    catalogued.write_parquet(folder / "catalogue.parquet")
    return Catalogue(
        digest=_digest(catalogued, settings), name=source.name, folder=folder, size=settings.size,
        count=len(catalogued), copies=usable - len(catalogued), rejected=len(rejects),
    )  # fmt: skip


def _catalogued(journal: Journal, settings: IngestSettings, scratch: Path) -> pl.DataFrame:
    """The table of photographs, in the order of the pixel store."""
    files = _usable(journal, ["path", "folder", "digest", *copies.LABEL])
    contents = _usable(journal, ["digest", *CONTENT]).unique("digest", keep="first", maintain_order=True)
    thumbnails = journal.thumbnails(duplicates.SIDE)
    first = duplicates.firsts(thumbnails, contents.get_column("digest"), settings.near_duplicate, scratch)
    stored = contents.with_row_index("index").with_columns(group=contents.get_column("digest").gather(first))
    found = copies.photographs(files).join(stored, on="digest", maintain_order="left")
    return found.sort("index", maintain_order=True).select(list(SCHEMA))


def _usable(journal: Journal, columns: list[str]) -> pl.DataFrame:
    return journal.ledger([*columns, "reason"]).filter(pl.col("reason").is_null()).drop("reason")


def _digest(catalogued: pl.DataFrame, settings: IngestSettings) -> str:
    rows = catalogued.select("digest", "age", "gender", "race").sort(pl.all()).write_csv()
    return digest_of("catalogue", VERSION, settings.size, settings.near_duplicate, rows)


def check_share(catalogue: Catalogue, settings: IngestSettings) -> None:
    """Refuse a catalogue whose source has too many unusable files.

    Raises:
        TooManyRejectsError: their share is above `settings.max_reject_share`.
    """
    _check_share(
        pl.read_parquet(catalogue.rejects), catalogue.count + catalogue.copies, settings, catalogue.rejects
    )  # fmt: skip


def _check_share(rejects: pl.DataFrame, usable: int, settings: IngestSettings, path: Path) -> None:
    counts = rejects.group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rows()) or "it holds no files"
    if usable == 0:
        firsts = rejects.unique("reason", keep="first", maintain_order=True).rows()
        why = "; ".join(f"{file}: {detail.rstrip('.')}" for file, _, detail in firsts[:3])
        listed = f"{reasons}; {why}; all are listed in {path}" if why else reasons
        raise SourceError(f"source: no usable photograph ({listed}); check source.data.")
    share = len(rejects) / (len(rejects) + usable)
    if share > settings.max_reject_share:
        raise TooManyRejectsError(
            f"ingest: {len(rejects)} of {len(rejects) + usable} files are unusable ({reasons}; listed in {path}), "
            f"{share:.1%} where ingest.max_reject_share allows {settings.max_reject_share:.1%}; "
            "fix the source or raise that limit."
        )
