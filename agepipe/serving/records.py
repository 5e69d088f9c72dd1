"""The records of predictions in parts."""

from pathlib import Path

from agepipe.core.record import Made, Record
from agepipe.data import archives

FACES, REJECTED = "faces.parquet", "rejects.parquet"
Stamp = tuple[int, int, int]
"""Size in bytes, and times of the last change of content and of status, ns; all -1 for a file that is not there."""


class Shard(Record):
    """Some photographs; the digest covers their paths as the user gave them, and the sizes and times of the files."""

    count: int
    """Number of files; of a damaged archive those that can be listed."""
    place: Path
    """Absolute path of the archive, or of the folder that `names` are relative to."""
    shown: str
    """What stands for `place` in the table: the path as the user gave it."""
    named: bool
    """Whether the user named the archive or the files; otherwise they were found in a folder."""
    stamps: tuple[Stamp, ...]
    """Size, time of change and of change of status of the archive or of each file, when they were listed."""
    names: tuple[bytes, ...] = ()
    """The files, as the system encodes their paths, which need not be UTF-8; empty for an archive."""
    start: int = 0
    """Where the first file of the archive is, from `agepipe.data.archives.starts`."""
    before: int = 0
    """Number of files before it."""
    last: bool = False
    """Whether the shard ends with its archive, whose damage it then reports."""

    @property
    def title(self) -> str:
        """What it is, as a name of a task run."""
        return f"predict {self.count} files of {archives.escaped(self.shown)}"


class Part(Made):
    """The predictions of a shard."""

    photographs: int
    """Photographs with at least one row."""
    faces: int
    """Rows."""

    @property
    def table(self) -> Path:
        """Parquet: `agepipe.serving.predict.Predictions.faces` with the probability of each range."""
        return self.folder / FACES

    @property
    def rejects(self) -> Path:
        """Parquet: `agepipe.serving.predict.Predictions.rejects`."""
        return self.folder / REJECTED
