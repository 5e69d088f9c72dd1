"""The embedded source `sample`: drawn faces in UTKFace's own file format, from a seed, for a first run and for tests.

Each face has a seed of its own, so the files are the same whatever the number of workers. As in UTKFace, ranges are
not alike, ages pile up at round numbers, some files are copies (a few of them under another age), some are re-encoded
copies, and a few have no race.
"""

import os
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.config.runtime import cores
from agepipe.core.errors import SourceError
from agepipe.core.progress import Progress, silent
from agepipe.data.sample.portrait import portrait
from agepipe.model.ages import OLDEST, UTKFACE_RANGES, AgeRanges

VERSION = 1
"""Raised when the drawing changes, so that older drawings are not taken for these."""
UTKFACE_COUNTS = (1605, 758, 855, 433, 582, 1385, 4831, 3369, 3182, 2100, 2211, 1172, 685, 540)
"""Photographs of each default range in UTKFace."""
SMALLEST_SHARE = 0.045
"""No range has a smaller share, so that each fold of a small sample has rows of each."""
COPIES = 0.01
"""Share of the files that are exact copies of others, and again of re-encoded ones."""
_CHUNK = 8  # an interrupted drawing still finishes a few


@dataclass(frozen=True)
class Person:
    """Who is drawn; `face` numbers the drawing."""

    face: int
    age: int
    female: bool
    race: int | None


@dataclass(frozen=True)
class Chip:
    """One file: whom it shows, what its name says, and at which JPEG quality it was encoded again, if it was."""

    person: Person
    age: int
    female: bool
    quality: int | None = None
    name: str = ""


def plan(count: int, seed: int) -> list[Chip]:
    """The files of a sample, in the order of their names' timestamps.

    Raises:
        SourceError: fewer than two faces a range.
    """
    ranges = AgeRanges.of(UTKFACE_RANGES)
    if count < 2 * len(ranges):
        raise SourceError(f"source.sample_count: {count} faces are too few; draw at least {2 * len(ranges)}.")
    rng = np.random.default_rng((seed, VERSION))
    copies = int(count * COPIES)
    ages = _ages(count - 2 * copies, ranges, rng)
    people = [_person(face, age, face < count // 700, rng) for face, age in enumerate(rng.permutation(ages).tolist())]
    chips = [Chip(person, person.age, person.female) for person in people]
    copied = [chips[k] for k in rng.choice(len(chips), 2 * copies, replace=False)]
    exact = [_relabelled(chip, rng) if k % 2 else chip for k, chip in enumerate(copied[:copies])]
    near = [replace(chip, quality=int(rng.integers(55, 75))) for chip in copied[copies:]]
    return _named([*chips, *exact, *near], rng)


def _ages(count: int, ranges: AgeRanges, rng: np.random.Generator) -> list[int]:
    shares = np.maximum(np.array(UTKFACE_COUNTS) / sum(UTKFACE_COUNTS), SMALLEST_SHARE)
    exact = shares / shares.sum() * count
    counts = np.maximum(exact.astype(int), 1)
    for position in np.argsort(counts - exact, kind="stable")[: count - counts.sum()]:
        counts[position] += 1
    found: list[int] = []
    for item, wanted in zip(ranges.ranges, counts.tolist(), strict=True):
        ages = np.arange(item.low, (OLDEST if item.high is None else item.high) + 1)
        weights = np.exp(-np.maximum(ages - 81, 0) / 9) * (1 + 1.5 * ((ages % 5 == 0) & (ages >= 60)) + (ages == 26))
        found += rng.choice(ages, wanted, p=weights / weights.sum()).tolist()
    found[0], found[-1] = ranges.youngest, OLDEST
    return found


def _person(face: int, age: int, nameless_race: bool, rng: np.random.Generator) -> Person:
    race = int(rng.choice(5, p=(0.42, 0.19, 0.15, 0.17, 0.07)))
    return Person(face, age, bool(rng.random() < 0.48), None if nameless_race else race)


def _relabelled(chip: Chip, rng: np.random.Generator) -> Chip:
    """The same picture under another age, and now and then another gender, as UTKFace has them."""
    other = chip.age + int(rng.integers(1, 9)) * (-1 if chip.age > 60 else 1)
    return replace(chip, age=other, female=chip.female != (rng.random() < 0.2))


def _named(chips: list[Chip], rng: np.random.Generator) -> list[Chip]:
    moments = np.cumsum(rng.integers(800, 900_000, len(chips)))
    order = rng.permutation(len(chips))
    named = []
    for moment, position in zip(moments.tolist(), order.tolist(), strict=True):
        chip = chips[position]
        stamp = (datetime(2017, 1, 9, tzinfo=UTC) + timedelta(milliseconds=moment)).strftime("%Y%m%d%H%M%S%f")[:17]
        race = [] if chip.person.race is None else [str(chip.person.race)]
        fields = [str(chip.age), str(int(chip.female)), *race, stamp]
        named.append(replace(chip, name="_".join(fields) + ".jpg.chip.jpg"))
    return named


def encoded(chip: Chip, seed: int) -> bytes:
    """The JPEG of a chip; copies of one face have the same bytes, re-encoded ones nearly the same look."""
    person, drawn = chip.person, (seed, VERSION, chip.person.face)
    picture = portrait(person.age, person.female, person.race, drawn)
    rng = np.random.default_rng((*drawn, 1))
    data = _jpeg(picture, int(rng.integers(82, 96)))
    if chip.quality is None:
        return data
    lighter = np.clip(picture.astype(np.int16) + 3, 0, 255).astype(np.uint8)
    return _jpeg(lighter, chip.quality)


def _jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not done:
        raise SourceError("sample: OpenCV could not encode a drawn face as JPEG; check its build.")
    return bytes(data)


def draw(folder: Path, count: int, seed: int, progress: Progress = silent, workers: int = 0) -> None:
    """Draw a sample into a folder; files that are there already are kept, so an interrupted drawing goes on.

    Args:
        folder: where the files go; made if need be.
        count: how many files, at least two a range.
        seed: decides every pixel and every name.
        progress: told after each few faces.
        workers: processes that draw; 0 takes one a core. The files do not depend on it.

    Raises:
        SourceError: too few faces for the ranges.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chips = plan(count, seed)
    missing = [chip for chip in chips if not (folder / chip.name).exists()]
    chunks = [missing[k : k + _CHUNK] for k in range(0, len(missing), _CHUNK)]
    done = count - len(missing)
    progress(done, count, "drawing faces")
    with closing(_drawn(folder, chunks, seed, min(workers or cores(), len(chunks)))) as drawn:
        for written in drawn:
            done += written
            progress(done, count, "drawing faces")


def _drawn(folder: Path, chunks: list[list[Chip]], seed: int, workers: int) -> Generator[int, None, None]:
    if workers <= 1:
        yield from (_write(folder, chunk, seed) for chunk in chunks)
        return
    # spawned: a fork server of this process is started once, and learning needs it with torch in it
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare)
    try:
        for future in as_completed([pool.submit(_write, folder, chunk, seed) for chunk in chunks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an interruption the remaining faces are not drawn


def _prepare() -> None:
    """One thread a process, and an end to the process when its parent was killed."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write(folder: Path, chips: list[Chip], seed: int) -> int:
    for chip in chips:
        # without an image suffix, so that a killed drawing leaves nothing to mistake for a face
        unfinished = folder / f".{chip.name}.part"
        unfinished.write_bytes(encoded(chip, seed))
        unfinished.replace(folder / chip.name)
    return len(chips)
