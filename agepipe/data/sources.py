"""Sources of photographs: folders, archives, archives by URI, a Kaggle download, or drawn sample faces.

`fingerprint` is quick: it lists names, sizes and times and decodes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from agepipe.config.runtime import Runtime
from agepipe.config.stages import SourceSettings
from agepipe.core import storage
from agepipe.core.artifacts import turn, whole
from agepipe.core.errors import SourceError, first_line
from agepipe.core.progress import Progress, silent
from agepipe.core.record import digest_of
from agepipe.data import archives
from agepipe.data.records import Source

SAMPLE = "sample"
KAGGLE = "kaggle:"
EMPTY = "give a folder with UTKFace photographs or with .zip, .tar, .tar.gz or .tgz archives of them."


def fingerprint(settings: SourceSettings, runtime: Runtime, progress: Progress = silent) -> Source:
    """Locate the photographs that the settings name, and identify them by names, sizes and times.

    `sample` is drawn and an archive by URI is downloaded into the workspace, if it is not there. In a workspace with a
    bucket `fetch` does this later, since the catalogue may be in the bucket already.

    Args:
        settings: what to read, and how to draw `sample`.
        runtime: the workspace in which drawn faces are stored.
        progress: called while `sample` is drawn.

    Raises:
        SourceError: a path does not exist, is empty or is no readable archive, or a download failed.
        StorageError: an archive by URI cannot be read.
    """
    check(settings.data)
    found = [_locate(text, settings, runtime) for text in settings.data]
    locations, parts, origins = (tuple(column) for column in zip(*found, strict=True))
    names = [location.name for location in locations] if len(found) > 1 else []
    source = Source(
        digest=digest_of("source", parts, names), name=_name(settings.data, locations), locations=locations,
        origins=origins,
    )  # fmt: skip
    if not runtime.bucket:
        fetch(source, progress)
    return source


def fetch(source: Source, progress: Progress = silent) -> None:
    """Draw or download the locations of a source that are not on this machine.

    Raises:
        SourceError: a downloaded file is no readable archive.
        StorageError: an archive by URI cannot be read.
    """
    pairs = zip(source.locations, source.origins, strict=False)  # records of earlier versions have no origins
    for location, origin in pairs:
        if not origin or location.exists():
            continue
        if storage.is_uri(origin):
            _fetch_archive(location, origin)
        else:
            _, count, seed = origin.split()
            _draw(location, int(count), int(seed), progress)


def check(data: Sequence[str]) -> None:
    """Check the names of sources, without decoding, drawing or downloading anything.

    Raises:
        SourceError: nothing is named, a path does not exist, is empty or is no readable archive, or the name of a
            Kaggle data set is malformed or kagglehub is not installed.
    """
    if not data:
        raise SourceError(f"source.data is empty; {EMPTY}")
    for text in data:
        if not text:
            raise SourceError(f"source: '' is an empty path; {EMPTY}")
        if text.startswith(KAGGLE):
            _check_kaggle(text.removeprefix(KAGGLE))
        elif _is_remote(text):
            _status(text)
        elif text != SAMPLE:
            _check_path(_path(text))


def prefixes(source: Source) -> list[str]:
    """The prefix of each location's paths in the catalogue.

    It is the name of an archive, and the name of a folder only if there are several locations.
    """
    several = len(source.locations) > 1
    return ["" if path.is_dir() and not several else f"{path.name}/" for path in source.locations]


def _locate(text: str, settings: SourceSettings, runtime: Runtime) -> tuple[Path, str, str]:
    """Path, digest and origin of one source."""
    if text == SAMPLE:
        return _sample(settings, runtime)
    if _is_remote(text):
        return _remote(text, runtime)
    path = _download(text.removeprefix(KAGGLE)) if text.startswith(KAGGLE) else _path(text)
    _check_path(path)
    if path.is_dir():
        return path, digest_of(*sorted(_stamp(found) for found in archives.walk(path))), ""
    status = path.stat()
    return path, digest_of(path.name, status.st_size, status.st_mtime_ns), ""


def _path(text: str) -> Path:
    """The path of a source on this machine, which may be a `file://` URI."""
    if not storage.is_uri(text):
        return Path(text).expanduser().absolute()
    storage.check_uri("source", text)
    return Path(url2pathname(urlsplit(text).path))


def _is_remote(text: str) -> bool:
    return storage.is_uri(text) and not text.startswith("file:")


def _remote(uri: str, runtime: Runtime) -> tuple[Path, str, str]:
    size, modified = _status(uri)
    digest = digest_of("remote", uri, size, modified)
    return runtime.workspace / "downloads" / digest[:16] / PurePosixPath(uri).name, digest, uri


def _status(uri: str) -> tuple[int, str]:
    """Size and time of change of an archive by URI.

    Raises:
        SourceError: the URI is not that of an archive.
        StorageError: there is no such archive, or it cannot be read.
    """
    if not archives.is_archive(PurePosixPath(uri).name):
        raise SourceError(
            f"source: '{uri}' does not end in {', '.join(archives.SUFFIXES)}; by URI only archives can be named, so "
            "pack the photographs into one, or name a folder of this machine."
        )
    fs, path = storage.opened("source", uri)
    with storage.asking("source", uri):
        return int(fs.size(path)), fs.modified(path).isoformat()


def _fetch_archive(location: Path, uri: str) -> None:
    with turn(location.parent):
        if not location.exists():  # another process may have downloaded it in the meantime
            fs, path = storage.opened("source", uri)
            with whole(location.parent) as draft, storage.asking("source", uri):
                fs.get_file(path, str(draft / location.name))
    archives.check(location)


def _check_path(path: Path) -> None:
    if missing := archives.missing(path):
        raise SourceError(f"source: {path} {missing}; {EMPTY}")
    if path.is_dir():
        _check_folder(path)
    elif archives.is_archive(path.name) and path.is_file():
        archives.check(path)
    else:
        raise SourceError(f"source: {path} is neither a folder nor an archive; {EMPTY}")


def _check_folder(folder: Path) -> None:
    try:
        first = next(archives.walk(folder), None)
    except OSError as error:
        raise SourceError(f"source: {folder} cannot be listed ({error}); check its permissions.") from error
    if first is None:
        raise SourceError(f"source: {folder} holds no files; {EMPTY}")


def _stamp(found: archives.Found) -> tuple[str, int, int]:
    status = found.status()
    if status is None or found.fault is not None:
        return found.path, -1, 0  # an unreadable file counts as well, so that the digest changes once it is readable
    return found.path, status.st_size, status.st_mtime_ns


def _sample(settings: SourceSettings, runtime: Runtime) -> tuple[Path, str, str]:
    from agepipe.data.sample import source as sample  # only this source needs the drawing code

    count, seed = settings.sample_count, settings.sample_seed
    digest = digest_of("sample", sample.VERSION, count, seed)
    return runtime.workspace / "samples" / digest[:16], digest, f"{SAMPLE} {count} {seed}"


def _draw(folder: Path, count: int, seed: int, progress: Progress) -> None:
    from agepipe.data.sample import source as sample

    with turn(folder):
        if not folder.is_dir():  # another process may have drawn it in the meantime
            drawn = folder.with_name(f"{folder.name}.partial")  # always the same name, so that a killed drawing resumes
            sample.draw(drawn, count, seed, progress)
            drawn.rename(folder)


def _check_kaggle(handle: str) -> None:
    if not re.fullmatch(r"[\w\-.]+/[\w\-.]+", handle):
        raise SourceError(f"source: '{KAGGLE}{handle}' is not of the form kaggle:OWNER/NAME.")
    if find_spec("kagglehub") is None:
        raise SourceError(
            f"source: '{KAGGLE}{handle}' needs kagglehub, which is not installed; "
            "start agepipe as `uv run --extra kaggle agepipe ...`."
        )


def _download(handle: str) -> Path:
    import kagglehub  # an optional extra, and slow to import

    try:
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub, requests and urllib3 each raise their own
        raise SourceError(
            f"source: Kaggle's data set '{handle}' could not be downloaded ({first_line(error)}); check the name and "
            "the network, or download it by hand and give its path."
        ) from error


def _name(data: tuple[str, ...], locations: tuple[Path, ...]) -> str:
    """A readable name: `utkface` for utkface-1.tar and utkface-2.tar; else the first name and a count."""
    names = list(_names(data, locations))
    if len(names) == 1:
        return names[0]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    common = "".join(letters[0] for letters in same).rstrip("-_. ")
    return common if len(common) >= 3 else f"{names[0]}-and-{len(names) - 1}-more"


def _names(data: tuple[str, ...], locations: tuple[Path, ...]) -> Iterator[str]:
    for text, path in zip(data, locations, strict=True):
        if text == SAMPLE:
            stem = SAMPLE
        elif text.startswith(KAGGLE):
            stem = text.rpartition("/")[2]
        else:
            stem = _stem(path.resolve())
        yield re.sub(r"[^a-z0-9_.\-]+", "-", stem.lower()).strip("-.") or "photographs"


def _stem(path: Path) -> str:
    suffix = next((end for end in archives.SUFFIXES if path.name.lower().endswith(end)), "")
    return path.name if path.is_dir() or not suffix else path.name[: -len(suffix)]
