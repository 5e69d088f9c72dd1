"""A lock in a bucket, for machines that share no file system.

Those who held it are a row of objects, `locks/NAME/00000001` and so on. A machine takes the lock by writing the next
object, which the store does only if there is none, so one of several machines gets it. It releases the lock by writing
`00000001.ended` beside its object. A machine that died never does; its lock is free after `LEASE`, which each waiting
machine measures itself, so their clocks need not agree.

A machine that holds the lock for longer than `LEASE`, and lives, does not learn that it has lost it.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from agepipe.core.errors import StorageError
from agepipe.core.storage import asking, create, opened

log = logging.getLogger("agepipe.progress")

LEASE = 600.0
"""Time after which the lock of a machine that does not release it is free, s; a promotion takes seconds."""
PAUSE = 1.0
"""Time between two requests of a machine that waits, s."""
ENDED = ".ended"


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
    mine = _taken(field, uri, name)
    try:
        yield
    finally:
        try:
            _write(field, uri, f"{mine}{ENDED}")
        except StorageError as error:
            log.warning("the lock %s could not be released, so others wait %.0f s for it: %s", mine, LEASE, error)


def _taken(field: str, uri: str, name: str) -> str:
    """Wait until the lock is free, and take it; returns the path of the object."""
    folder = f"{opened(field, uri)[1]}/locks/{name}"
    seen, since = 0, time.monotonic()
    while True:
        names = _names(field, uri, folder)
        last = max((int(one) for one in names if one.isdecimal()), default=0)
        if last != seen:
            seen, since = last, time.monotonic()
        free = last == 0 or f"{last:08}{ENDED}" in names or time.monotonic() - since > LEASE
        if free and _write(field, uri, mine := f"{folder}/{last + 1:08}"):
            _forget(field, uri, [f"{folder}/{one}" for one in names if int(one.removesuffix(ENDED)) < last])
            return mine
        if not free and since + PAUSE < time.monotonic() < since + 2 * PAUSE:
            log.info("waiting for %s, which another machine uses (its name is in %s/%08d)", name, folder, last)
        time.sleep(PAUSE)


def _names(field: str, uri: str, folder: str) -> list[str]:
    fs, _ = opened(field, uri)
    try:
        with asking(field, uri, missing_ok=True):
            found = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    names = [PurePosixPath(path).name for path in found]
    return [name for name in names if name.removesuffix(ENDED).isdecimal()]


def _write(field: str, uri: str, path: str) -> bool:
    """Write an object that names this machine; False if there is one already."""
    fs, _ = opened(field, uri)
    with asking(field, uri):
        return create(fs, path, json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode())


def _forget(field: str, uri: str, paths: list[str]) -> None:
    """Remove the objects of earlier holders; the last one stays, because the next number follows from it."""
    fs, _ = opened(field, uri)
    for path in paths:
        with asking(field, uri):
            fs.rm_file(path)
