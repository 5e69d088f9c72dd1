"""Counts of a catalogue and signs of faulty labels: spikes, copies, contradictions, rejects."""

from collections.abc import Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict

from agepipe.config.stages import LabelSettings
from agepipe.core.errors import DataError
from agepipe.data.filenames import GENDERS, RACES, class_folder
from agepipe.data.labels import class_column, read_table
from agepipe.data.records import Catalogue
from agepipe.model.ages import AgeRanges

SPIKE = 1.8
"""An age is a spike when it has this many times the mean of the ages within two years of it..."""
SPIKE_DOUBT = 4.0
"""...and exceeds that mean by this many deviations of a Poisson count..."""
SPIKE_LEAST = 4.0
"""...whose mean is taken to be at least this, so that a handful of photographs is no spike."""
ROUND_FROM = 60
"""From this age on the share of multiples of five is reported; one fifth would be expected by chance."""
SIZES = 5
"""Most frequent picture sizes that are listed; the others are counted together."""


class Finding(BaseModel):
    """Base of the parts of an audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tally(Finding):
    """How many photographs there are of one kind."""

    name: str
    count: int


class Spike(Finding):
    """An age with far more photographs than its neighbours."""

    age: int
    count: int
    expected: float
    """Mean count of the ages within two years of it."""


class Copies(Finding):
    """Groups of files that show the same photograph."""

    groups: int
    surplus: int
    """Files beyond the first of each group."""
    ages: int
    """Groups whose labels disagree on the age."""
    ranges: int
    """Groups whose ages fall into different ranges."""
    genders: int
    """Groups whose labels disagree on the gender."""


class Quartiles(Finding):
    """Smallest value, quartiles, and largest value."""

    low: float
    first: float
    median: float
    third: float
    high: float


class Audit(Finding):
    """The results of an audit; every sequence is in the order in which it is shown."""

    name: str
    digest: str
    """The catalogue's."""
    files: int
    usable: int
    """Photographs: files with the same content and label count once, as in all other figures but `exact`, `near` and
    `rejects`, which count files."""
    repeated: int
    """Usable files beyond the first of each photograph."""
    rejects: tuple[Tally, ...]
    """By reason, the most frequent first."""
    ranges: tuple[Tally, ...]
    """By range, in the order of the ranges."""
    outside: int
    """Usable photographs whose age has no range."""
    genders: tuple[Tally, ...]
    """By UTKFace's codes, then the unknown."""
    races: tuple[Tally, ...]
    """By UTKFace's codes, then the unknown."""
    ages: tuple[tuple[int, int], ...]
    """Age and count, for each age that occurs."""
    spikes: tuple[Spike, ...]
    round_share: float | None
    """Share of multiples of five among the ages from 60 on; None without such ages."""
    exact: Copies
    """Identical files."""
    near: Copies
    """Identical files and re-encoded copies together: the groups that the split keeps on one side."""
    foldered: int
    """Photographs with a file in a folder whose name is that of a range, or its number."""
    misfiled: int
    """Photographs of these whose age is not in the range of one of the folders."""
    sizes: tuple[Tally, ...]
    """Width × height in px: the five most frequent, then the sum of the others."""
    brightness: Quartiles
    """Mean luma, 0 to 1."""
    sharpness: Quartiles
    """Variance of the Laplacian of the luma."""

    @property
    def rejected(self) -> int:
        """Files that could not be used."""
        return self.files - self.usable - self.repeated


def audit(catalogue: Catalogue, labels: LabelSettings) -> Audit:
    """Audit a catalogue with the ranges of the settings.

    Raises:
        DataError: a table does not agree with the record.
    """
    ranges = labels.age_ranges()
    table = ranged(catalogue, ranges)
    rejects = pl.read_parquet(catalogue.rejects)
    ages = table.group_by("age").len().sort("age").rows()
    foldered, misfiled = _filed(table.with_row_index("row"), ranges)
    return Audit(
        name=catalogue.name,
        digest=catalogue.digest,
        files=len(table) + catalogue.copies + len(rejects),
        usable=len(table),
        repeated=catalogue.copies,
        rejects=_most(rejects.get_column("reason")),
        ranges=_coded(table.get_column("label"), ranges.names, None),
        outside=table.get_column("label").null_count(),
        genders=_coded(table.get_column("gender"), GENDERS),
        races=_coded(table.get_column("race"), RACES),
        ages=tuple(ages),
        spikes=spikes(ages),
        round_share=_round_share(table),
        exact=_copies(table, "digest"),
        near=_copies(table, "group"),
        foldered=foldered,
        misfiled=misfiled,
        sizes=_sizes(table),
        brightness=_quartiles(table.get_column("brightness")),
        sharpness=_quartiles(table.get_column("sharpness")),
    )


def ranged(catalogue: Catalogue, ranges: AgeRanges) -> pl.DataFrame:
    """The catalogue's table with the column `label`, Int16, null outside the ranges.

    Raises:
        DataError: the table cannot be read, lacks a column, or its number of rows differs from the record.
    """
    table = read_table(catalogue.table)
    if len(table) != catalogue.count:
        raise DataError(
            f"{catalogue.table}: has {len(table)} rows where its record says {catalogue.count}; run ingest again."
        )
    return table.with_columns(label=class_column(ranges))


def spikes(ages: Sequence[tuple[int, int]]) -> tuple[Spike, ...]:
    """The ages with far more photographs than the ages within two years of them, youngest first."""
    counts = dict(ages)
    youngest, oldest = min(counts, default=0), max(counts, default=0)
    found = []
    for age, count in ages:
        near = [counts.get(age + step, 0) for step in (-2, -1, 1, 2) if youngest <= age + step <= oldest]
        expected = sum(near) / len(near) if near else float(count)
        if count > SPIKE * expected and count - expected > SPIKE_DOUBT * max(expected, SPIKE_LEAST) ** 0.5:
            found.append(Spike(age=age, count=count, expected=expected))
    return tuple(found)


def _most(values: pl.Series) -> tuple[Tally, ...]:
    counts = values.alias("name").value_counts(name="count").sort("count", "name", descending=[True, False])
    return tuple(Tally(name=name, count=count) for name, count in counts.rows())


def _coded(codes: pl.Series, names: Sequence[str], unknown: str | None = "unknown") -> tuple[Tally, ...]:
    counts = dict(codes.alias("code").value_counts(name="count").rows())
    tallies = [Tally(name=name, count=counts.get(code, 0)) for code, name in enumerate(names)]
    if unknown is not None and counts.get(None):
        tallies.append(Tally(name=unknown, count=counts[None]))
    return tuple(tallies)


def _round_share(table: pl.DataFrame) -> float | None:
    old = table.get_column("age").cast(pl.Int64)
    old = old.filter(old >= ROUND_FROM)
    return float((old % 5 == 0).sum() / len(old)) if len(old) else None


def _copies(table: pl.DataFrame, key: str) -> Copies:
    several = table.group_by(key).agg(
        (1 + pl.col("copies").list.len()).sum().alias("len"),
        ages=pl.col("age").n_unique() > 1,
        ranges=pl.col("label").n_unique() > 1,
        genders=pl.col("gender").drop_nulls().n_unique() > 1,
    )
    several = several.filter(pl.col("len") > 1)
    total = several.select(pl.col("len").sum() - pl.len(), pl.col("ages", "ranges", "genders").sum()).row(0)
    surplus, ages, ranges, genders = (int(value) for value in total)
    return Copies(groups=len(several), surplus=surplus, ages=ages, ranges=ranges, genders=genders)


def _filed(table: pl.DataFrame, ranges: AgeRanges) -> tuple[int, int]:
    """Number of photographs in folders of ranges, and of those among them that are in the folder of a wrong range."""
    copies = table.select("row", "label", pl.col("copies").alias("path")).explode("path").drop_nulls("path")
    folders = [class_folder(path.rpartition("/")[0].rpartition("/")[2]) for path in copies["path"]]
    further = copies.select("row", "label", folder=pl.Series(folders, dtype=pl.String))
    files = pl.concat([table.select("row", "label", "folder"), further])
    filed = files.with_columns(place=_folder_place(ranges)).drop_nulls("place")
    wrong = filed.filter(pl.col("place") != pl.col("label").fill_null(-1))
    return filed["row"].n_unique(), wrong["row"].n_unique()


def _folder_place(ranges: AgeRanges) -> pl.Expr:
    """The class that a row's folder stands for, by the range's name or else its position; null for any other folder."""
    places = {str(position): position for position in range(len(ranges))}
    places |= {name: position for position, name in enumerate(ranges.names)}
    return pl.col("folder").replace_strict(places, default=None, return_dtype=pl.Int16)


def _sizes(table: pl.DataFrame) -> tuple[Tally, ...]:
    every = _most(table.select(pl.format("{} × {}", "width", "height")).to_series())
    rest = sum(tally.count for tally in every[SIZES:])
    return (*every[:SIZES], *([Tally(name="others", count=rest)] if rest else []))


def _quartiles(values: pl.Series) -> Quartiles:
    points = [values.quantile(share, "linear") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    low, first, median, third, high = (0.0 if value is None else float(value) for value in points)
    return Quartiles(low=low, first=first, median=median, third=third, high=high)
