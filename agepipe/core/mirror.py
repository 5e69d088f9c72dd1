"""The mirror of a workspace in a bucket, through which machines share results that share nothing else.

A workspace that is named by a URI is a folder in the cache of this machine. Each finished result folder is also copied
into the bucket, where it looks like this:

    models/faces-0123456789/manifest.json               the folder's manifest, and each file's path, size and digest
    models/faces-0123456789/1a2b3c4d5e6f7081/model.onnx a file, under the first digits of its digest

The manifest is written last, and only if there is none, so a result is visible whole or not at all, and of two machines
that finish the same result the first one counts. Two different files never have the same name in the bucket, so
machines that push the same result at once do not disturb each other, and an interrupted push continues.
"""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from agepipe.core.artifacts import MANIFEST, file_digest, read_manifest, remove, replacing, turn, whole
from agepipe.core.errors import StorageError
from agepipe.core.record import Record
from agepipe.core.storage import asking, create, is_local, opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger("agepipe.progress")

FIELD = "workspace"
"""The setting that names the bucket, for errors."""
MARK = ".mirrored"
"""File in a result folder that holds the URI of the bucket into which the folder was copied."""
PROBE = "agepipe-workspace.json"
"""Object that a command writes at its start, to learn whether the bucket exists and can be written."""
LARGE = 1 << 20
"""Size in bytes from which a push checks whether the bucket has the file already."""


class _DamagedError(Exception):
    """A file of a result is missing in the bucket, or is not what its manifest says."""


class Mirror:
    """The copy of a workspace in a bucket; with an empty URI there is none, and nothing is done.

    All methods raise `StorageError` if the bucket cannot be used.
    """

    def __init__(self, uri: str, workspace: Path) -> None:
        self.uri, self.workspace = uri, workspace

    def check(self) -> None:
        """Check that the bucket exists and can be written."""
        if self.uri:
            fs, root = self._store()
            with asking(FIELD, self.uri):
                if is_local(fs):
                    Path(root).mkdir(parents=True, exist_ok=True)
                fs.pipe_file(f"{root}/{PROBE}", b'{"agepipe": "a workspace"}\n')

    @contextmanager
    def token(self) -> Iterator[str]:
        """The name of an object that is in the bucket while the block runs, by which another machine recognises it."""
        fs, root = self._store()
        name = f"agepipe-cluster-{uuid.uuid4().hex[:8]}"
        with asking(FIELD, self.uri):
            fs.pipe_file(f"{root}/{name}", b"")
        try:
            yield name
        finally:
            with asking(FIELD, self.uri):
                fs.rm_file(f"{root}/{name}")

    def has(self, token: str) -> bool:
        """Whether the bucket is the one in which another machine has put this token."""
        fs, root = self._store()
        with asking(FIELD, self.uri):
            return bool(fs.exists(f"{root}/{token}"))

    def settle(self, folder: Path) -> bool:
        """Push a result that only this machine has, or pull one that it has not.

        Args:
            folder: a folder of the workspace, finished or not there.

        Returns:
            Whether the folder is now one that was pulled, because this machine had none or another was first.
        """
        if not self.uri or self._settled(folder):
            return False
        if read_manifest(folder) is not None and self._pushed(folder):
            return False
        return self._pull(folder)

    def fetch(self, record: Record) -> None:
        """Pull the results in which files of a record lie that are not on this machine."""
        if not self.uri:
            return
        missing = (path for path in record.paths() if path.is_relative_to(self.workspace) and not path.exists())
        for kind, name in {path.relative_to(self.workspace).parts[:2] for path in missing}:
            folder = self.workspace / kind / name
            with turn(folder):
                self.settle(folder)

    def elsewhere(self, kind: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """The results in a folder of the workspace that only the bucket has, with their manifests."""
        if not self.uri:
            return
        fs, root = self._store()
        try:
            with asking(FIELD, self.uri, missing_ok=True):
                found = fs.ls(f"{root}/{kind}", detail=False)
        except FileNotFoundError:
            return
        for name in sorted(PurePosixPath(path).name for path in found):
            folder = self.workspace / kind / name
            if read_manifest(folder) is None and (manifest := self._manifest(folder)) is not None:
                yield folder, manifest

    def remove(self, folder: Path) -> None:
        """Remove a result from the bucket, its manifest first; the folder on this machine stays."""
        if not self.uri:
            return
        (folder / MARK).unlink(missing_ok=True)  # if this process is killed, the folder counts as not pushed
        fs, _ = self._store()
        for path, recursive in ((f"{self._place(folder)}/{MANIFEST}", False), (self._place(folder), True)):
            with suppress(FileNotFoundError), asking(FIELD, self.uri, missing_ok=True):
                fs.rm(path, recursive=recursive)

    def forget(self, folder: Path) -> None:
        """Remove a result from this machine that was in the bucket and is there no more: `--refresh` has removed it."""
        if self.uri and self._settled(folder) and self._manifest(folder) is None:
            remove(folder, self.workspace)

    def _settled(self, folder: Path) -> bool:
        """Whether a finished folder is known to be in the bucket; nothing is requested."""
        try:
            marked = (folder / MARK).read_text(encoding="utf-8") == self.uri
        except FileNotFoundError:
            return False
        return marked and read_manifest(folder) is not None

    def _pushed(self, folder: Path) -> bool:
        try:
            return self._push(folder)
        except StorageError as error:
            raise StorageError(f"{str(error).rstrip('.')}; {folder} is kept, and is copied then.") from error

    def _push(self, folder: Path) -> bool:
        """Copy a finished folder into the bucket; False if another machine was first with another result."""
        objects = _objects(folder)
        theirs = self._manifest(folder)
        if theirs is None:
            log.info("copying %s to %s", folder.relative_to(self.workspace), self.uri)
            with asking(FIELD, self.uri):
                self._upload(folder, objects)
                theirs = self._listed(folder, {**(read_manifest(folder) or {}), "objects": objects})
        if _digests(theirs["objects"]) != _digests(objects):
            return False
        (folder / MARK).write_text(self.uri, encoding="utf-8")
        return True

    def _upload(self, folder: Path, objects: Mapping[str, Mapping[str, Any]]) -> None:
        fs, _ = self._store()
        for path, one in objects.items():
            place = self._object(folder, path, one)
            if one["size"] < LARGE or not (fs.exists(place) and fs.size(place) == one["size"]):
                self._put(folder / path, place)

    def _put(self, source: Path, place: str) -> None:
        fs, _ = self._store()
        if not is_local(fs):
            fs.put_file(str(source), place)
            return
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(place)) as draft:  # fsspec would write under the final name
            shutil.copyfile(source, draft)

    def _listed(self, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest that is in the bucket after this one was written there, unless another one is already."""
        fs, _ = self._store()
        place, text = f"{self._place(folder)}/{MANIFEST}", json.dumps(manifest, indent=2).encode()
        return manifest if create(fs, place, text) else self._manifest(folder) or self._listed(folder, manifest)

    def _pull(self, folder: Path) -> bool:
        """Copy a folder out of the bucket and replace the one on this machine; False if the bucket has none."""
        manifest = self._manifest(folder)
        if manifest is None:
            return False
        log.info("fetching %s from %s", folder.relative_to(self.workspace), self.uri)
        try:
            with whole(folder) as draft:
                self._fill(draft, folder, manifest)
                remove(folder, self.workspace)
        except _DamagedError as error:
            log.warning("%s in %s is not used: %s", folder.relative_to(self.workspace), self.uri, error)
            self.remove(folder)  # with its files, since the next push would take one of the right size for whole
            return self.settle(folder)
        return True

    def _fill(self, draft: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Copy all files of a result into a draft."""
        fs, _ = self._store()
        for path, one in manifest["objects"].items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with asking(FIELD, self.uri, missing_ok=True):
                    fs.get_file(self._object(folder, path, one), str(target))
            except FileNotFoundError as error:
                raise _DamagedError(f"its file {path} is missing") from error
            if file_digest(target) != one["sha256"]:
                raise _DamagedError(f"its file {path} has another digest than its manifest says")
            os.utime(target, ns=(one["modified"], one["modified"]))  # the newest evaluation is found by its time
        for name in manifest["files"]:
            if not (draft / name).exists():
                (draft / name).mkdir()  # an empty folder, which a bucket does not have
        (draft / MARK).write_text(self.uri, encoding="utf-8")

    def _manifest(self, folder: Path) -> dict[str, Any] | None:
        """The manifest in the bucket; None if there is none."""
        fs, _ = self._store()
        place = f"{self._place(folder)}/{MANIFEST}"
        try:
            with asking(FIELD, self.uri, missing_ok=True):
                content = fs.cat_file(place)
        except FileNotFoundError:
            return None
        try:
            found = json.loads(content)
            names = [PurePosixPath(name) for name in (*found["objects"], *found["files"])]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{FIELD}: {place} is not a manifest that agepipe wrote there; delete it.") from error
        if any(name.is_absolute() or ".." in name.parts for name in names):
            raise StorageError(
                f"{FIELD}: {place} names files outside its folder; delete it, and find out who wrote it."
            )
        return dict(found)

    def _place(self, folder: Path) -> str:
        """The path of a result folder in the bucket."""
        return f"{self._store()[1]}/{folder.relative_to(self.workspace).as_posix()}"

    def _object(self, folder: Path, path: str, one: Mapping[str, Any]) -> str:
        return f"{self._place(folder)}/{one['sha256'][:16]}/{PurePosixPath(path).name}"

    def _store(self) -> "tuple[AbstractFileSystem, str]":
        return opened(FIELD, self.uri)


def _objects(folder: Path) -> dict[str, dict[str, Any]]:
    """Size, digest and time of each file of a result folder, by its path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(folder).as_posix(): _described(path) for path in paths}


def _described(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "sha256": file_digest(path), "modified": status.st_mtime_ns}


def _digests(objects: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {path: one["sha256"] for path, one in objects.items()}
