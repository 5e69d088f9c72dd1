"""Errors of the operating system as one sentence that names the file and says what to do."""

import errno

from agepipe.core.errors import OutputError

NO_ROOM = ("No space left on device", "Disk quota exceeded", "disk is full")
"""Messages of libraries about a full disk; the last is SQLite's."""

REMEDIES = {
    errno.EACCES: "this user may not; change its permissions, or name another place",
    errno.EPERM: "this user may not; change its permissions, or name another place",
    errno.EROFS: "it lies on a disk that is mounted read-only; name another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; name another place",
    errno.EISDIR: "it is a folder, not a file; name another file",
    errno.ENAMETOOLONG: "the name is too long for the file system; name a shorter one",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EEXIST: "there is a file of that name already; name another place",
    errno.ELOOP: "its links lead in a circle; name the file itself",
    errno.EMFILE: "this process has too many open files; raise `ulimit -n`",
    errno.EIO: "the disk or network file system failed; check it",
    errno.ESTALE: "the network file system has lost it; mount it again",
}
"""Remedies for errors of the operating system, by error number."""


def of_system(error: OSError) -> OutputError:
    """An error of the operating system as a sentence that names the file."""
    if full := full_disk(error):
        return OutputError(full)
    said = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "check the file and its disk, then give the same command again")
    return OutputError(f"{error.filename or 'The operating system refused'}: {said} ({remedy}).")


def full_disk(error: BaseException) -> str | None:
    """The message for an error that a full disk has caused; None for any other error."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and not any(words in str(error) for words in NO_ROOM):
        return None
    file = getattr(error, "filename2", None) or getattr(error, "filename", None)  # the second is the target of a copy
    return (
        f"the disk is full{f', so {file} could not be written' if file else ''}; make room, then give the same command "
        "again: it goes on from what is finished."
    )
