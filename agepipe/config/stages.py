"""Every setting of the pipeline: one frozen model per stage, with bounds and a description of each field.

`Config` decides the results and is part of their digests; `agepipe.config.runtime.Runtime` decides how and where they
are computed, and is not. `agepipe.config.presets` reads `Config` from files.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from agepipe.config.base import Seed, Settings, Side
from agepipe.config.learn import AugmentSettings, LearnSettings
from agepipe.config.search import LOWER_IS_BETTER, Metric, SearchSettings
from agepipe.core.errors import ConfigError
from agepipe.model.ages import AgeRanges, RangeSpec

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, (str, Path)) else value


class SourceSettings(Settings):
    """Where the photographs come from."""

    data: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ("sample",)
    """Folders or archives of UTKFace photographs, archives by URI (`s3://BUCKET/FACES.tar`), `kaggle:OWNER/NAME`, or
    `sample` for drawn faces."""
    sample_count: Annotated[int, Field(ge=28, le=100_000)] = 2400
    """Number of faces that `sample` draws."""
    sample_seed: Seed = 7
    """Seed of the faces that `sample` draws."""


class IngestSettings(Settings):
    """How files become rows of the catalogue and pictures of the pixel store."""

    size: Side = 108
    """Side of a stored picture in px; training crops `learn.size` out of it."""
    min_side: Annotated[int, Field(ge=1, le=4096)] = 32
    """A photograph with a shorter side, in px, is rejected as too small."""
    max_pixels: Annotated[int, Field(ge=1_000, le=500_000_000)] = 40_000_000
    """A picture of more pixels is decoded at a half, a quarter or an eighth of its sides. One whose decoding would need
    more memory than 20 bytes times this number is rejected without being decoded."""
    min_age: Annotated[int, Field(ge=0, le=130)] = 1
    """A younger age in a file name is rejected as out of range."""
    max_age: Annotated[int, Field(ge=1, le=130)] = 116
    """An older age in a file name is rejected as out of range."""
    max_reject_share: Share = 0.2
    """The stage fails if a larger share of the files is unusable."""
    near_duplicate: Annotated[float, Field(gt=0.9, le=1.0)] = 0.975
    """Correlation of 24×24 grey thumbnails above which two photographs count as the same one."""

    @model_validator(mode="after")
    def _check_ages(self) -> Self:
        if self.min_age > self.max_age:
            raise ConfigError(
                f"ingest.min_age: {self.min_age}, but ingest.max_age is {self.max_age}, so no photograph can be used; "
                "lower one or raise the other."
            )
        return self


class LabelSettings(Settings):
    """How ages become classes."""

    ranges: RangeSpec = "utkface"
    """`utkface` (fourteen ranges), `years` (single years), or the ranges by name, youngest first."""
    conflicts: Literal["keep", "drop", "median"] = "keep"
    """Duplicates with different ages: `keep` each age, `drop` the group, or give all of them the `median` age."""

    def age_ranges(self) -> AgeRanges:
        """The ranges, checked."""
        return AgeRanges.of(self.ranges)

    @field_validator("ranges")
    @classmethod
    def _check_ranges(cls, value: RangeSpec) -> RangeSpec:
        AgeRanges.of(value)
        return value


class SplitSettings(Settings):
    """Which rows are locked away as test rows."""

    test: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.2
    """Share of the rows that is locked as the test set, stratified by range, duplicates kept together."""
    seed: Seed = 20
    """Seed for drawing the test groups."""
    extend: bool = True
    """Whether to extend the champion's split, so that its rows stay on their side."""


class FinalSettings(Settings):
    """Settings of the final training only; a change here does not recompute the search."""

    epochs: Annotated[int, Field(ge=1, le=2000)] = 12
    """Epochs of the final training."""
    validation: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.1
    """Share of the development rows that is kept apart, for temperature and prediction sets and for `keep = "best"`."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose weights the model has: the best by `metric` on the validation rows, with early stopping; or the last,
    so that these rows serve only for calibration, and the prediction sets keep their coverage on new rows."""
    refit: bool = False
    """Train on all development rows, without validation rows, and keep the last epoch; for a recipe that is already
    chosen. Temperature and prediction sets are then fitted on the search's out-of-fold predictions (`search.always`
    computes these for a single setting too); without a search there are none.
    """
    patience: Annotated[int, Field(ge=1, le=2000)] = 7
    """Epochs without a better validation figure after which training stops (`keep = "best"`); epochs at a side below
    `learn.size` do not count."""
    metric: Metric = "macro_recall"
    """Validation figure for early stopping and the choice of the best epoch (`keep = "best"`)."""
    seed: Seed = 40
    """Seed for drawing the validation groups; weights and batches use `learn.seed`."""

    @property
    def count(self) -> str:
        """The number of epochs, as a sentence has it."""
        return str(self.epochs) if self.refit or self.keep == "last" else f"at most {self.epochs}"

    @model_validator(mode="after")
    def _check_refit(self) -> Self:
        for field in ("validation", "keep", "patience", "metric", "seed"):
            if self.refit and self.differs(field):
                raise ConfigError(
                    f"final.{field}: {getattr(self, field)} does nothing with final.refit; leave one of the two out."
                )
        for field in ("patience", "metric"):
            if self.keep == "last" and self.differs(field):
                raise ConfigError(
                    f"final.{field}: {getattr(self, field)} does nothing with final.keep = 'last', which trains all "
                    "epochs and chooses none; leave it out, or take 'best'."
                )
        return self


class EvaluateSettings(Settings):
    """How the test figures and their intervals are computed."""

    draws: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Bootstrap draws; groups of duplicates are drawn, not rows."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Coverage of the intervals."""
    seed: Seed = 50
    """Seed of the bootstrap."""
    level: Annotated[int, Field(ge=50, le=99)] = 90
    """Level of the prediction sets in percent: the share of rows whose set should contain the true range."""
    min_slice: Annotated[int, Field(ge=2)] = 30
    """Minimum number of different photographs, in a slice and in the rest of the rows, for a comparison. With 30, an
    accuracy is known to within 18 points; with fewer, bootstrap percentiles are not reliable."""


SliceKind = Literal["gender", "race", "range", "size", "blur", "brightness"]
"""The kinds of slices that are evaluated separately."""


class ReleaseSettings(Settings):
    """When a new version becomes the champion."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$")] = "agepipe"
    """Name of the registered model."""
    metric: Metric = "macro_recall"
    """Figure that decides the paired comparison with the champion on the same test rows."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """A challenger is promoted when it is better in at least this share of the bootstrap draws."""
    min_rows: Annotated[int, Field(ge=1)] = 50
    """Minimum number of rows, unseen by both models, for a comparison."""
    watch: tuple[SliceKind, ...] = ("gender", "race")
    """Kinds of slices that must not get worse: gender, race, range, size, blur or brightness of the picture."""
    margin: Annotated[float, Field(ge=0.0, lt=100.0)] = 0.5
    """Years by which the mean absolute error of a watched slice may grow."""


class Config(Settings):
    """Pipeline settings: everything that decides the result."""

    preset: str = "custom"
    """Name of the preset that these settings are based on."""
    variant: str = ""
    """Name of the variant that was applied to the preset; empty for the plain preset."""
    source: SourceSettings = SourceSettings()
    ingest: IngestSettings = IngestSettings()
    labels: LabelSettings = LabelSettings()
    split: SplitSettings = SplitSettings()
    learn: LearnSettings = LearnSettings()
    search: SearchSettings = SearchSettings()
    final: FinalSettings = FinalSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    release: ReleaseSettings = ReleaseSettings()

    @property
    def title(self) -> str:
        """Preset and variant, as runs and tables name them."""
        return f"{self.preset} {self.variant}".strip()

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.search.check_rungs(self.learn.epochs)
        self.search.check_each(self.learn, self._check_learn)
        return self

    def _check_learn(self, learn: LearnSettings) -> None:
        if learn.size > self.ingest.size:
            raise ConfigError(
                f"learn.size: {learn.size} px, but ingest.size stores {self.ingest.size}; take at most that, or store "
                "larger ones."
            )
        learn.check_epochs(self.final.epochs, "final.epochs")
        if self.search.trains:
            learn.check_epochs(learn.epochs, "learn.epochs")


__all__ = [
    "LOWER_IS_BETTER", "AugmentSettings", "Config", "EvaluateSettings", "FinalSettings", "IngestSettings",
    "LabelSettings", "LearnSettings", "Metric", "ReleaseSettings", "SearchSettings", "SliceKind", "SourceSettings",
    "SplitSettings",
]  # fmt: skip
