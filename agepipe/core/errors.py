"""Every error that agepipe raises on purpose, as one tree.

AgepipeError                 catch this to catch them all
├── ConfigError              a setting, preset or override that cannot be used
├── SourceError              a folder, archive or download that cannot be read as photographs
│   └── TooManyRejectsError  more files were unusable than the configuration allows
├── ImageError               bytes that cannot be used as a photograph
├── DataError                a table or pixel store that contradicts what its record says
├── TrainingError            a training that cannot go on (no memory, a full disk)
│   ├── DivergedError        the loss is not finite: another setting may do
│   └── WorkerError          the process of a training failed
│       └── DiedError        it was killed or crashed: its checkpoint is there to go on from
├── LeakageError             a model would be judged on rows that it has seen
├── TrackingError            a tracking store that cannot be opened, or that another MLflow has changed
├── ModelError               a bundle, checkpoint or registered version that cannot be used
│   └── DetectorError        the face detector's file is not there and cannot be fetched
├── OutputError              a file or folder that cannot be written or read by this user
└── ServiceError             a server that cannot be started, reached or ended

A message is one sentence that names the field or file, the value received and what is allowed, and what to do.
"""

import errno

NO_ROOM = ("No space left on device", "Disk quota exceeded", "disk is full")
"""What libraries say of a full disk in errors of their own; the last is SQLite's."""


class AgepipeError(Exception):
    """Base of all errors that a user can act on; the command line prints its message without a traceback."""


class ConfigError(AgepipeError):
    """A setting, preset or override that cannot be used."""


class SourceError(AgepipeError):
    """A folder, archive or download that cannot be read as photographs."""


class TooManyRejectsError(SourceError):
    """More files were unusable than `ingest.max_reject_share` allows."""


class ImageError(AgepipeError):
    """Bytes that cannot be used as a photograph.

    Attributes:
        reason: one of `agepipe.model.headers.Fault`.
        detail: what was found and what is allowed.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"The picture cannot be used ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class DataError(AgepipeError):
    """A table or pixel store that contradicts what its record says."""


class TrainingError(AgepipeError):
    """A training that cannot go on; the last good checkpoint is kept."""


class DivergedError(TrainingError):
    """The loss is not finite: another setting may do."""


class WorkerError(TrainingError):
    """The process of a training failed."""


class DiedError(WorkerError):
    """The process of a training was killed or crashed, and may go on from its checkpoint."""


class LeakageError(AgepipeError):
    """A model would be judged on rows that it has seen."""


class TrackingError(AgepipeError):
    """A tracking store that cannot be opened, or that another MLflow has changed."""


class ModelError(AgepipeError):
    """A bundle, checkpoint or registered version that cannot be used."""


class DetectorError(ModelError):
    """The face detector's file is not there and cannot be fetched."""


class OutputError(AgepipeError):
    """A file or folder that cannot be written or read by this user."""


class ServiceError(AgepipeError):
    """A server that cannot be started, reached or ended."""


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
"""What to do about an error of the operating system, by its number."""


def of_system(error: OSError) -> OutputError:
    """An error of the operating system as a sentence that names the file."""
    if full := full_disk(error):
        return OutputError(full)
    said = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "check the file and its disk, then give the same command again")
    return OutputError(f"{error.filename or 'The operating system refused'}: {said} ({remedy}).")


def full_disk(error: BaseException) -> str | None:
    """What to tell the user about an error that a full disk has caused; None for any other."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and not any(words in str(error) for words in NO_ROOM):
        return None
    file = getattr(error, "filename", None)
    return (
        f"the disk is full{f', so {file} could not be written' if file else ''}; make room, then give the same command "
        "again: it goes on from what is finished."
    )
