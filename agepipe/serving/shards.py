"""Shards of many photographs: the unit in which they are predicted, in any process, whole or not at all.

A shard is a range of the files of an archive, or some files of a folder. Their predictions, one after the other, are
those of `agepipe.serving.predict.predict` for the same paths.
"""

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import polars as pl

from agepipe.config.runtime import Runtime
from agepipe.core.errors import DetectorError, SourceError
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data import archives
from agepipe.data.archives import Entry
from agepipe.model.predictor import Predictor
from agepipe.model.records import Model
from agepipe.serving import pictures
from agepipe.serving.detect.detector import FaceDetector, load_detector
from agepipe.serving.pictures import Picture
from agepipe.serving.predict import SCHEMA, predicted
from agepipe.serving.records import FACES, REJECTED, Part, Shard, Stamp


def shards(locations: Sequence[Path], size: int) -> Iterator[Shard]:
    """Divide photographs, folders and archives into shards of at most `size` files, in the order of `predict`.

    Nothing is decoded: names are listed, and the headers of archives are read.

    Raises:
        SourceError: a folder that the user named cannot be listed.
    """
    loose: list[bytes] = []
    for location in locations:
        is_archive = location.is_file() and archives.is_archive(location.name)
        if not is_archive and not location.is_dir():
            loose.append(os.fsencode(location))
            continue
        yield from _of_files(Path.cwd(), "", loose, size, named=True)
        loose = []
        if is_archive:
            yield from _of_archive(location.absolute(), str(location), size, named=True)
        else:
            yield from _of_folder(location.absolute(), str(location), size)
    yield from _of_files(Path.cwd(), "", loose, size, named=True)


def _of_folder(folder: Path, shown: str, size: int) -> Iterator[Shard]:
    loose: list[bytes] = []
    try:
        found = archives.in_order(folder)
    except OSError as error:
        name = archives.escaped(shown)
        raise SourceError(f"path: {name} cannot be listed ({error.strerror}); check its permissions.") from error
    for item in found:
        status = item.status()
        if archives.is_archive(item.path) and status is not None and stat.S_ISREG(status.st_mode):
            yield from _of_files(folder, shown, loose, size, named=False)
            loose = []
            yield from _of_archive(Path(item.item.path), f"{shown}/{item.path}", size, named=False)
        else:
            loose.append(os.fsencode(item.path))
    yield from _of_files(folder, shown, loose, size, named=False)


def _of_files(folder: Path, shown: str, names: list[bytes], size: int, *, named: bool) -> Iterator[Shard]:
    for start in range(0, len(names), size):
        chosen = tuple(names[start : start + size])
        stamps = tuple(_stamp(folder / os.fsdecode(name), follow=named) for name in chosen)
        yield Shard(
            digest=digest_of("files", folder, shown, named, chosen, stamps), count=len(chosen), place=folder,
            shown=shown, named=named, names=chosen, stamps=stamps,
        )  # fmt: skip


def _of_archive(archive: Path, shown: str, size: int, *, named: bool) -> Iterator[Shard]:
    begins: list[int] = []
    count = 0
    try:
        for count, start in enumerate(archives.starts(archive), start=1):
            if count % size == 1 or size == 1:
                begins.append(start)
    except SourceError:
        pass  # the last shard reads to the damage and reports it
    stamp = _stamp(archive, follow=named)
    for number, start in enumerate(begins or [0]):
        before, last = number * size, number == len(begins) - 1 or not begins
        files = min(size, count - before)
        yield Shard(
            digest=digest_of("archive", archive, shown, named, stamp, start, files), count=files, place=archive,
            shown=shown, named=named, start=start, before=before, last=last, stamps=(stamp,),
        )  # fmt: skip


def _stamp(path: Path, *, follow: bool) -> Stamp:
    """The stamp of a file; of its target if `follow`, as files are read that the user named."""
    try:
        status = path.stat(follow_symlinks=follow)
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_unchanged(shard: Shard) -> None:
    """Refuse files that are not those that were listed: they have changed, or another machine has others there.

    Raises:
        SourceError: names the file and this machine.
    """
    paths = [shard.place / os.fsdecode(name) for name in shard.names] or [shard.place]
    for path, stamp in zip(paths, shard.stamps, strict=True):
        if _stamp(path, follow=shard.named)[:2] != stamp[:2]:  # copies on several machines differ in the third
            raise SourceError(
                f"path: {archives.escaped(str(path))} on {socket.gethostname()} is not the file that was listed; give "
                "the command again if it has changed, or let all workers see the same files."
            )


def read(shard: Shard) -> Iterator[Picture]:
    """Read and decode the files of a shard, as `agepipe.serving.pictures.read` does."""
    for found in _entries(shard):
        yield found if isinstance(found, Picture) else pictures.decode(found)


def _entries(shard: Shard) -> Iterator[Entry | Picture]:
    if shard.names:
        for name in map(os.fsdecode, shard.names):
            if shard.named:
                yield pictures.file(shard.place / name, name)
            else:
                yield archives.single(f"{shard.shown}/{name}", shard.place / name)
        return
    most = None if shard.last else shard.count
    if not shard.named:
        yield from islice(archives.inside(shard.place, shard.shown, shard.start, shard.before), most)
        return
    try:
        yield from islice(archives.entries(shard.place, f"{shard.shown}/", shard.start), most)
    except (SourceError, OSError) as error:
        yield Picture(archives.escaped(shard.shown), None, pictures.UNREADABLE, str(error))


def part(
    shard: Shard, model: Model, detector: str, folder: Path, runtime: Runtime, progress: Progress = silent
) -> Part:
    """Predict the photographs of a shard on one thread.

    Args:
        shard: the photographs.
        model: the bundle.
        detector: title of the face detector; empty takes each photograph as an aligned face.
        folder: an empty folder, to which the tables are written.
        runtime: device of the network, and the workspace that has the detector's file.
        progress: called after each file.

    Raises:
        SourceError: a file is not the one that was listed.
        DetectorError: this machine has another detector.
        ModelError: the bundle cannot be used, or the network fails.
    """
    _check_unchanged(shard)
    predictor = Predictor.load(model.folder, device=runtime.device)
    found = predicted(
        predictor, read(shard), shard.count, _detector(detector, runtime), all_ranges=True, progress=progress
    )
    _check_unchanged(shard)
    found.faces.write_parquet(folder / FACES)
    found.rejects.write_parquet(folder / REJECTED)
    return Part(
        digest=digest_of("part", shard, model, detector), folder=folder,
        photographs=found.faces["path"].n_unique(), faces=len(found.faces),
    )  # fmt: skip


def _detector(title: str, runtime: Runtime) -> FaceDetector | None:
    if not title:
        return None
    detector, _ = load_detector(runtime)
    if detector.title != title:
        raise DetectorError(
            f"detector: {socket.gethostname()} finds faces by {detector.title}, and the command by {title}; copy "
            "YuNet's file to it, or let it download the file."
        )
    return detector


def combined(parts: Sequence[Part], *, all_ranges: bool = False) -> tuple[pl.LazyFrame, pl.DataFrame]:
    """Faces and rejects of all parts in their order, as in `Predictions`; the faces are read when they are used."""
    table = pl.scan_parquet([part.table for part in parts])
    rejects = pl.concat([pl.read_parquet(part.rejects) for part in parts])
    return table if all_ranges else table.select(list(SCHEMA)), rejects
