"""Every error that agepipe raises on purpose, as one tree.

AgepipeError                 catch this to catch them all
├── ConfigError              a setting, preset or override that cannot be used
├── SourceError              a folder, archive or download that cannot be read as photographs
│   └── TooManyRejectsError  more files were unusable than the configuration allows
├── ImageError               bytes that cannot be used as a photograph
├── DataError                a table or pixel store that contradicts what its record says
├── TrainingError            a training that cannot continue (no memory, a full disk)
│   ├── DivergedError        the loss is not finite: another setting may work
│   └── WorkerError          the process of a training failed
│       └── DiedError        it was killed or crashed: it can resume from its checkpoint
├── LeakageError             a model would be evaluated on rows that it has seen
├── TrackingError            a tracking store that cannot be opened, or that another MLflow has changed
├── ModelError               a bundle, checkpoint or registered version that cannot be used
│   └── DetectorError        the face detector's file is not there and cannot be fetched
├── OutputError              a file or folder that cannot be written or read by this user
├── StorageError             a bucket, or a file in one, that cannot be reached, read or written
└── ServiceError             a server that cannot be started, reached or ended

A message is one sentence that names the field or file, the value received and what is allowed, and what to do.
"""


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
    """A training that cannot continue; the last good checkpoint is kept."""


class DivergedError(TrainingError):
    """The loss is not finite: another setting may work."""


class WorkerError(TrainingError):
    """The process of a training failed."""


class DiedError(WorkerError):
    """The process of a training was killed or crashed; the training can resume from its checkpoint."""


class LeakageError(AgepipeError):
    """A model would be evaluated on rows that it has seen."""


class TrackingError(AgepipeError):
    """A tracking store that cannot be opened, or that another MLflow has changed."""


class ModelError(AgepipeError):
    """A bundle, checkpoint or registered version that cannot be used."""


class DetectorError(ModelError):
    """The face detector's file is not there and cannot be fetched."""


class OutputError(AgepipeError):
    """A file or folder that cannot be written or read by this user."""


class StorageError(AgepipeError):
    """A bucket, or a file in one, that cannot be reached, read or written."""


class ServiceError(AgepipeError):
    """A server that cannot be started, reached or ended."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
