"""Every setting of the pipeline: one frozen model a stage, with bounds and a sentence on each field.

`Config` says *what* is made and enters the digests of results; `agepipe.config.runtime.Where` says how and where, and
does not. `agepipe.config.presets` reads the files that fill a `Config`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from agepipe.config.base import Settings, check_grid
from agepipe.config.search_space import Space, read
from agepipe.model.ages import AgeRanges, RangeSpec
from agepipe.model.decoding import Decoding

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Side = Annotated[int, Field(ge=32, le=512)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, (str, Path)) else value


class SourceSettings(Settings):
    """Where the photographs come from."""

    data: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ("sample",)
    """Folders or archives of UTKFace photographs, `kaggle:OWNER/NAME`, or `sample` for drawn faces."""
    sample_count: Annotated[int, Field(ge=28, le=100_000)] = 2400
    """How many faces `sample` draws."""
    sample_seed: Seed = 7
    """The seed from which `sample` draws its faces."""


class IngestSettings(Settings):
    """How files become rows of the catalogue and pictures of the pixel store."""

    size: Side = 108
    """Side of a stored picture in px; training crops `learn.size` out of it."""
    min_side: Annotated[int, Field(ge=1, le=4096)] = 32
    """A photograph with a shorter side, in px, is rejected as too small."""
    max_pixels: Annotated[int, Field(ge=1_000, le=500_000_000)] = 40_000_000
    """A picture of more pixels is decoded at a half, a quarter or an eighth of its sides; one whose decoding takes more
    than 20 bytes for each of these pixels is rejected before anything is decoded."""
    min_age: Annotated[int, Field(ge=0, le=130)] = 1
    """A younger age in a file name is rejected as out of range."""
    max_age: Annotated[int, Field(ge=1, le=130)] = 116
    """An older age in a file name is rejected as out of range."""
    max_reject_share: Share = 0.2
    """The stage stops when a larger share of the files is unusable."""
    near_duplicate: Annotated[float, Field(gt=0.9, le=1.0)] = 0.975
    """Correlation of 24×24 grey thumbnails above which two photographs count as the same one."""


class LabelSettings(Settings):
    """How ages become classes."""

    ranges: RangeSpec = "utkface"
    """`utkface` (fourteen ranges), `years` (single years), or the ranges by name, youngest first."""
    conflicts: Literal["keep", "drop", "median"] = "keep"
    """Duplicates that disagree on the age: keep each as it is, drop the group, or give all the median age."""

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
    """The seed from which the test groups are drawn."""
    extend: bool = True
    """Whether to extend the champion's split, so that rows it placed stay on their side."""


class AugmentSettings(Settings):
    """What training changes in a batch; validation, test and camera never do."""

    flip: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Probability of a mirror image."""
    shift: bool = True
    """Crop `learn.size` out of the stored picture at a random place; false takes the centre."""
    rotate: Annotated[float, Field(ge=0.0, le=45.0)] = 0.0
    """Largest rotation either way, degrees."""
    scale: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Largest change of scale either way, as a share."""
    brightness: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest change of brightness either way, as a share."""
    contrast: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Largest change of contrast either way, as a share."""
    grey: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability of a grey picture."""
    erase: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a random rectangle is erased."""
    blur: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a picture is shrunk and enlarged again, as a poor or distant camera shows it."""
    jpeg: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability that a picture goes through JPEG-like compression, of a quality drawn between 10 and 75."""
    mix: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Mix each picture with one of about the same age (C-Mixup); parameter of the beta distribution, 0 mixes none."""


class LearnSettings(Settings):
    """What every trial and the final training share: the network, its objective and its optimizer."""

    network: str = "shufflenet_v2_x0_5"
    """A classifier of torchvision by name, or one of timm as `timm/NAME`, that ends in a linear layer."""
    weights: str = "none"
    """`none` for random weights, `pretrained` for the network's own, a name of torchvision's such as `IMAGENET1K_V1`, a
    local file, or a registered version such as `models:/agepipe@champion`. With pretrained weights pictures are
    normalised as those were trained, else by mean and deviation of the training rows."""
    head: Literal["linear", "v1", "v2", "v3"] = "linear"
    """What replaces the classifier; v1, v2 and v3 are the notebook's (see `agepipe.training.network`)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout before (and, in v1 to v3, inside) the head."""
    size: Side = 96
    """Side of the network's input in px; at most `ingest.size`."""
    sizes: tuple[Side, ...] = ()
    """Sides that training goes through, in px, each for an equal part of its epochs: rising, the last is `size`; empty
    trains at `size` throughout. The network is judged and exported at `size`, whatever it grew through."""
    target: Literal["ranges", "ordinal", "years"] = "ranges"
    """What the network is taught: the range; the range and, the less the further off, its neighbours (`ordinal`); or
    a distribution over single years that is summed into ranges."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the target spread over all classes (`target = "ranges"`)."""
    class_weights: bool = False
    """Weigh each row by the inverse frequency of its range in the training rows."""
    years_loss: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1
    """Weight of the absolute error of the expected age in the loss (`target = "years"`)."""
    helpers: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight in the loss of two further heads, for gender and race, that the finished model does not have; 0: none."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """The optimizer."""
    lr: Annotated[float, Field(gt=0.0, le=10.0)] = 2e-3
    """Largest learning rate."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor of the learning rate from each block of the network to the one before it; the head has all of `lr`."""
    clip: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    """Largest norm of the gradient of a step, to which longer ones are shortened; 0 shortens none."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of SGD; first beta of AdamW."""
    nesterov: bool = False
    """Nesterov momentum (`optimizer = "sgd"`)."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Weight decay."""
    l1: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the L1 norm of the parameters in the loss."""
    schedule: Literal["constant", "one-cycle", "cosine"] = "one-cycle"
    """How the learning rate moves over the training."""
    batch: Annotated[int, Field(ge=2, le=4096)] = 64
    """Rows in a batch; must not exceed the training rows."""
    epochs: Annotated[int, Field(ge=1, le=2000)] = 8
    """Epochs of a trial; `final.epochs` says how many the last training takes."""
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay a step of the exponential average of the weights; 0 keeps none."""
    decoding: Decoding = "likeliest"
    """How one range is answered: the `likeliest`, or the `median`, which costs the fewest ranges of error."""
    mirror: bool = False
    """Average the prediction over the photograph and its mirror image."""
    augment: AugmentSettings = AugmentSettings()
    """What training changes in a batch."""
    seed: Seed = 1
    """Seed of weights, order of batches and augmentation."""


Metric = Literal["macro_recall", "accuracy", "within_one", "mae", "macro_f1", "loss"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"mae", "loss", "ece"})


class SearchSettings(Settings):
    """Which settings are tried, and how the best is chosen."""

    strategy: Literal["grid", "halving", "optuna"] = "grid"
    """Try all of `grid`; try all of it but stop the worse settings at each of `rungs`; or have Optuna propose settings
    from `space`."""
    grid: dict[str, tuple[Any, ...]] = {}
    """Fields of `learn` by dotted name, each with the values to try; empty tries `learn` as it is."""
    rungs: tuple[Annotated[int, Field(ge=1, le=2000)], ...] = ()
    """Epochs, rising and fewer than `learn.epochs`, after which the worse settings stop (`strategy = "halving"`)."""
    keep: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of the settings, rounded up, that goes on from each of `rungs`."""
    space: Space = {}
    """Fields of `learn` by dotted name, each `{low, high, log}` or a list of choices (`strategy = "optuna"`)."""
    trials: Annotated[int, Field(ge=2, le=10_000)] = 20
    """Settings that Optuna proposes; with more of them a finished study goes on."""
    together: Annotated[int, Field(ge=1, le=512)] = 1
    """Settings proposed at a time; those of one batch do not know each other's results."""
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    """Folds of the cross-validation inside the development rows."""
    always: bool = False
    """Judge the folds where there is only one setting too: for its mean over folds, and for the out-of-fold predictions
    that `final.refit` is calibrated on."""
    seed: Seed = 30
    """The seed from which the folds are drawn."""
    metric: Metric = "macro_recall"
    """Validation figure that decides, as the mean over folds; ties go to the cheaper setting."""

    @field_validator("grid")
    @classmethod
    def _check_grid(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        check_grid(LearnSettings(), value)
        return value

    @field_validator("space", mode="before")
    @classmethod
    def _check_space(cls, value: object) -> object:
        return read(LearnSettings(), value) if isinstance(value, Mapping) else value


class FinalSettings(Settings):
    """What only the last training has; a change here recomputes it and what follows, not the search."""

    epochs: Annotated[int, Field(ge=1, le=2000)] = 12
    """Epochs of the last training."""
    validation: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.1
    """Share of the development rows that early stopping and the choice of the best epoch look at."""
    refit: bool = False
    """Train on all development rows, those for validation too, and keep the last epoch: for a recipe chosen before.
    Temperature and prediction sets then come from the search's out-of-fold predictions (`search.always` has them for a
    single setting too); without any from nothing.
    """
    patience: Annotated[int, Field(ge=1, le=2000)] = 7
    """Epochs without a better validation figure after which training stops; none counts below `learn.size`."""
    metric: Metric = "macro_recall"
    """Validation figure that the best epoch and early stopping go by."""
    seed: Seed = 40
    """The seed from which the validation groups are drawn; weights and batches use `learn.seed`."""


class EvaluateSettings(Settings):
    """How the test figures and their intervals are computed."""

    draws: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Bootstrap draws; groups of duplicates are drawn, not rows."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Coverage of the intervals."""
    seed: Seed = 50
    """Seed of the bootstrap."""
    level: Annotated[int, Field(ge=50, le=99)] = 90
    """Level of the prediction sets that are judged, in percent: the share of rows whose set is to hold the truth."""
    min_slice: Annotated[int, Field(ge=2)] = 30
    """Different photographs that a slice, and all rows outside of it, must each have to be told from the rest. With 30
    an accuracy is known to 18 points either way; with fewer, percentiles of a bootstrap are not to be trusted."""


SliceKind = Literal["gender", "race", "range", "size", "blur", "brightness"]
"""By what rows are parted into slices that are looked at by themselves."""


class ReleaseSettings(Settings):
    """When a new version becomes the champion."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+$")] = "agepipe"
    """Name of the registered model."""
    metric: Metric = "macro_recall"
    """Figure of the paired comparison with the champion on the same test rows."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """A challenger is promoted when it is better in at least this share of the bootstrap draws."""
    min_rows: Annotated[int, Field(ge=1)] = 50
    """A comparison over fewer rows that neither model has seen is refused."""
    watch: tuple[SliceKind, ...] = ("gender", "race")
    """Kinds of slices none of which may get worse: gender, race, range, size, blur or brightness of the picture."""
    margin: Annotated[float, Field(ge=0.0, lt=100.0)] = 0.5
    """Years by which the mean absolute error of a watched slice may grow."""


class Config(Settings):
    """Pipeline settings: all that decides the result."""

    preset: str = "custom"
    """Name of the preset that this started from."""
    variant: str = ""
    """Name of the preset's variant that was laid over it; empty for the preset as it stands."""
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
