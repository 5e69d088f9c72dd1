"""The small frozen records that pass between stages: paths, digests and counts, never pixels or weights."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from agepipe.ages import AgeRanges
from agepipe.config import SplitSettings
from agepipe.decide import Decoding
from agepipe.record import Made, Record


class Source(Record):
    """Photographs to read: the digest covers names, sizes and times, so that it is quick to take."""

    name: str
    """A short readable name for folders and titles, such as `utkface`."""
    locations: tuple[Path, ...]
    """Folders and archives to read, in order."""

    def files(self) -> tuple[Path, ...]:
        """The locations."""
        return self.locations


class Catalogue(Made):
    """What ingest made of a source: one table row for each usable photograph, one stored picture for each content.

    The digest is over the content digests and labels of all rows, whatever their order or paths.
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
    """What the photographs are; the digest is over the catalogue and the labels' settings."""

    @property
    def page(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "data-report.html"

    @property
    def summary(self) -> Path:
        """The counts, as JSON."""
        return self.folder / "audit.json"


class Rows(Record):
    """Labelled rows: a Parquet table whose `index` points into the pixel store.

    The digest is over content digest, age, gender, race, group and class of each row in any order, the ranges and the
    store size: not over paths or positions.
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

    def home(self) -> Path:
        """Its folder."""
        return self.table.parent


class Partition(Record):
    """Development and test rows that share no photograph, nor copies of one."""

    development: Rows
    test: Rows
    whole: str
    """Digest of the rows that were split."""
    earlier: str | None = None
    """Digest of the partition that this one extends, if it does."""
    left_out: int = 0
    """New rows that would have tied a test group to a development group."""
    settings: SplitSettings
    """What it was drawn by."""
    members: Path
    """Parquet: `digest`, `group`, `look`, `side` of every row placed; what a later split extends."""

    def home(self) -> Path:
        """Its folder."""
        return self.members.parent


class Fold(BaseModel):
    """Which part of the development rows a trial validates on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    count: int
    seed: int


class Trial(Made):
    """One setting trained from a fresh network on all folds but one, and judged on that one."""

    settings: dict[str, Any]
    """The values of the searched fields, by dotted name inside `learn`."""
    setting: int
    """Position of the setting in the grid."""
    fold: Fold
    metrics: dict[str, float]
    """Validation figures of the best epoch."""
    seconds: float
    epochs: int
    parameters: int = 0
    """Trainable numbers in the network; a tie in the search goes to the smaller."""
    planned: int = 0
    """Epochs that its schedule was laid out for."""

    @property
    def whole(self) -> bool:
        """Whether it ran to the end; otherwise its figures are those of its first `epochs`."""
        return self.epochs >= self.planned


class Stopped(BaseModel):
    """A setting that the search stopped early; never compared with one that ran to the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    epochs: int
    """Epochs after which it was stopped."""
    planned: int
    """Epochs that it would have had."""
    mean: float
    """Its score after those epochs, as the mean over folds."""


class Choice(Record):
    """The setting that won the search, with the mean and standard deviation of its score over folds."""

    settings: dict[str, Any]
    metric: str
    mean: float
    deviation: float
    trials: int
    runs: tuple[str, ...] = ()
    """The MLflow runs of all trials."""
    stopped: tuple[Stopped, ...] = ()
    """What was stopped early; the choice was made among the others."""
    outcomes: tuple[Path, ...] = ()
    """What the networks of the chosen setting said of the fold that each had not seen; see `agepipe.learn.trial`."""

    def files(self) -> tuple[Path, ...]:
        """The out-of-fold predictions."""
        return self.outcomes


class Model(Made):
    """A trained network, exported; the digest is over the network file and the card."""

    folder: Path
    """The bundle: `model.onnx`, `card.json`, `lineage.parquet`, `curves.parquet`; see `agepipe.serve.bundle`."""
    lineage: Literal["known", "unknown"] = "known"
    metrics: dict[str, float] = {}
    """Validation figures of the kept epoch."""
    epochs: int = 0
    seconds: float = 0.0


class Evaluation(Made):
    """What a model does on rows that it has not seen; the digest is over model, rows and settings."""

    model: str
    """Digest of the model."""
    rows: str
    """Digest of the rows it was judged on."""
    count: int
    folder: Path
    """`metrics.json`, `predictions.parquet`, `label-errors.csv`, `report.html`, tables and plots."""
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confidence: float = 0.95
    """Coverage of the intervals."""
    excluded: int = 0
    """Rows left out because the model had seen them."""
    decoding: Decoding = "likeliest"
    """How one range was answered from the probabilities."""
    lineage: Literal["known", "unknown"] = "known"
    """Whether it is known what the model has seen; otherwise every figure may be too good."""
    verdict: str = ""
    """The main figures in plain words, each beside that of the best constant guess."""
    warning: str = ""
    """In what the model is not better than a constant guess; empty where it is better in every main figure."""

    @property
    def judged_on(self) -> str:
        """The photographs in words, with what they were to the model."""
        if self.lineage == "unknown":
            return f"{self.count:,} photographs, which the model may have seen: what it was trained on is unknown"
        return f"{self.count:,} unseen photographs"

    @property
    def doubt(self) -> str:
        """What stands beside every figure of a model of which nobody knows what it has seen; else empty."""
        return " (may be too good)" if self.lineage == "unknown" else ""

    @property
    def report(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "report.html"

    @property
    def model_card(self) -> Path:
        """Markdown: what the model is for, how good it is, and for whom it is worse."""
        return self.folder / "model-card.md"

    @property
    def predictions(self) -> Path:
        """Parquet: `digest`, `group`, `age`, `label`, `predicted`, `years`, and `p0`... one column a class.

        Where there were prediction sets, `low` and `high`, their first and last class; where the rows had them,
        `gender`, `race`, `width`, `height`, `brightness`, `sharpness`.
        """
        return self.folder / "predictions.parquet"


class Compared(Made):
    """Several models on the same rows, each against the first; the digest is over models, rows and settings."""

    @property
    def page(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "comparison.html"

    @property
    def facts(self) -> Path:
        """All that was found, as JSON; `agepipe.judge.contrast.read` reads it."""
        return self.folder / "comparison.json"


class Registered(Record):
    """A version in the model registry and what became of it; the digest is the model's."""

    name: str
    version: int
    alias: str
    """`champion` or `challenger`."""
    reason: str
    """One sentence: why it has this alias."""


class PipelineResult(BaseModel):
    """What a run of the whole pipeline found and made."""

    model_config = ConfigDict(frozen=True)

    run: str
    """The MLflow run of the pipeline."""
    catalogue: Catalogue
    report: DataReport
    partition: Partition
    choice: Choice
    model: Model
    evaluation: Evaluation
    registered: Registered
