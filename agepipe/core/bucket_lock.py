"""A lock in a bucket, for machines that share no file system.

Those who held it are a row of objects, `locks/NAME/00000001` and so on. A machine takes the lock by writing the next
object, which the store does only if there is none, so one of several machines gets it. What is in the last object then
says which one, whatever answer the request had. A machine releases the lock by writing `00000001.ended` beside its
object. A machine that died never does; its lock is free after `LEASE`, which each waiting machine measures itself, so
their clocks need not agree.

A machine that holds the lock for longer than `LEASE`, and lives, does not learn that it has lost it. A store that
ignores the condition of a write (If-None-Match of S3) gives no lock.
"""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any

from agepipe.core.errors import StorageError
from agepipe.core.storage import asking, create, opened

log = logging.getLogger("agepipe.progress")

LEASE = 600.0
"""Time after which the lock of a machine that does not release it is free, s; a promotion takes seconds."""
PAUSE = 1.0
"""Time between two requests of a machine that waits, s."""
ENDED = ".ended"
KEPT = 100
"""Objects of earlier holders that stay, so that a request that was delayed finds its number taken."""


@contextmanager
def bucket_lock(field: str, uri: str, name: str) -> Iterator[None]:
    """Hold a lock while the block runs, after waiting for the machine that holds it.

    Args:
        field: setting that holds the URI, for errors.
        uri: the bucket, and a folder in it.
        name: name of the lock.

    Raises:
        StorageError: the bucket cannot be used.
    """
    lock = _Lock(field, uri, name)
    mine = lock.take()
    try:
        yield
    finally:
        try:
            lock.write(f"{mine:08}{ENDED}", "")
            lock.forget(mine - KEPT)
        except StorageError as error:
            log.warning(
                "the lock %s/%08d could not be released, so others may wait %.0f s for it: %s",
                lock.folder, mine, LEASE, error,
            )  # fmt: skip


class _Lock:
    """The objects of a lock; all methods raise `StorageError` if the bucket cannot be used."""

    def __init__(self, field: str, uri: str, name: str) -> None:
        self._field, self._uri, self._name = field, uri, name
        self._fs, root = opened(field, uri)
        self.folder = f"{root}/locks/{name}"

    def take(self) -> int:
        """Wait until the lock is free, and take it; returns the number of the object."""
        mine = {"host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}
        seen, since, told = 0, time.monotonic(), False
        while True:
            names = self._names()
            last = max((int(one) for one in names if one.isdecimal()), default=0)
            if last != seen:
                seen, since = last, time.monotonic()
            if last == 0 or f"{last:08}{ENDED}" in names or time.monotonic() - since > LEASE:
                self.write(f"{last + 1:08}", json.dumps(mine))
                if self._last() == (last + 1, mine):
                    return last + 1
            elif not told and time.monotonic() - since > PAUSE:
                log.info("waiting for %s, which is in use (%s/%08d says where)", self._name, self.folder, last)
                told = True
            time.sleep(PAUSE)

    def write(self, name: str, text: str) -> None:
        """Write an object if there is none."""
        with asking(self._field, self._uri):
            create(self._fs, f"{self.folder}/{name}", text.encode())

    def forget(self, last: int) -> None:
        """Remove the objects of earlier holders, up to a number."""
        for name in self._names():
            if int(name.removesuffix(ENDED)) <= last:
                with suppress(FileNotFoundError), asking(self._field, self._uri, missing_ok=True):
                    self._fs.rm_file(f"{self.folder}/{name}")

    def _last(self) -> tuple[int, dict[str, Any]]:
        """Number and content of the last object."""
        last = max(int(one) for one in self._names() if one.isdecimal())
        with asking(self._field, self._uri):
            return last, json.loads(self._fs.cat_file(f"{self.folder}/{last:08}"))

    def _names(self) -> list[str]:
        try:
            with asking(self._field, self._uri, missing_ok=True):
                found = self._fs.ls(self.folder, detail=False)
        except FileNotFoundError:
            return []
        names = [PurePosixPath(path).name for path in found]
        return [name for name in names if name.removesuffix(ENDED).isdecimal()]
