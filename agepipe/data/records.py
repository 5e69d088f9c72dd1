"""Records of the data stages: paths, digests and counts, never pixels."""

from pathlib import Path

from agepipe.config.stages import SplitSettings
from agepipe.core.record import Made, Record
from agepipe.model.ages import AgeRanges


class Source(Record):
    """Photographs to read; the digest covers names, sizes and times, so that it is quick to compute."""

    name: str
    """A short readable name for folders and titles, such as `utkface`."""
    locations: tuple[Path, ...]
    """Folders and archives to read, in order."""
    origins: tuple[str, ...] = ()
    """For each location how `agepipe.data.sources.fetch` makes it if it is not on this machine; empty if it cannot."""

    def files(self) -> tuple[Path, ...]:
        """The locations: the only files that must exist."""
        return self.locations


class Catalogue(Made):
    """The result of ingest: one table row for each usable photograph, one stored picture for each content.

    The digest is over the content digests and labels of all rows, independent of their order and paths.
    """

    name: str
    size: int
    """Side of a stored picture, px."""
    count: int
    """Photographs: files with the same content and label count once."""
    copies: int = 0
    """Usable files beyond the first of each photograph."""
    rejected: int

    @property
    def pixels(self) -> Path:
        """`.npy`, uint8 `(contents, size, size, 3)`, RGB; rows with the same content and another label share one."""
        return self.folder / "pixels.npy"

    @property
    def table(self) -> Path:
        """Parquet, one row a photograph: the columns of `agepipe.data.ingest.SCHEMA`."""
        return self.folder / "catalogue.parquet"

    @property
    def rejects(self) -> Path:
        """Parquet: `path`, `reason`, `detail` of every file that could not be used."""
        return self.folder / "rejects.parquet"


class DataReport(Made):
    """A report on the photographs of a catalogue; the digest is over the catalogue and the labels' settings."""

    @property
    def page(self) -> Path:
        """The report as one HTML file without further files."""
        return self.folder / "data-report.html"

    @property
    def summary(self) -> Path:
        """The counts, as JSON."""
        return self.folder / "audit.json"


class Rows(Record):
    """Labelled rows: a Parquet table whose `index` points into the pixel store.

    The digest is over content digest, age, gender, race, group and class of each row in any order, the ranges and the
    picture size, but not over paths or positions.
    """

    table: Path
    """Parquet: the catalogue's columns, `group` and `label` among them."""
    pixels: Path
    """`.npy`, uint8 `(all contents, size, size, 3)`, RGB; `index` picks the rows."""
    size: int
    count: int
    ranges: AgeRanges
    name: str = ""
    outside: int = 0
    """Rows of the catalogue that were left out because their age has no range."""


class Partition(Record):
    """Development and test rows that share no photograph and no copies of one."""

    development: Rows
    test: Rows
    whole: str
    """Digest of the rows that were split."""
    earlier: str | None = None
    """Digest of the earlier partition that this one extends; None if it extends none."""
    left_out: int = 0
    """Number of rows that were left out because they connect a test group with a development group."""
    settings: SplitSettings
    """The settings of the split."""
    members: Path
    """Parquet: `digest`, `group`, `look`, `side` of every placed row, from which a later split extends this one."""
