"""Ages become classes in the order of the ranges, and copies that disagree are handled as the settings say."""

import json
from pathlib import Path

import polars as pl
import pytest
from folders import fresh

from agepipe.config.stages import LabelSettings
from agepipe.core.errors import ConfigError, DataError
from agepipe.data.labels import class_column, relabel, rows_digest, settle
from agepipe.data.records import Catalogue, Rows
from agepipe.model.ages import UTKFACE_RANGES, AgeRanges


def frame(ages: list[int], groups: list[str] | None = None) -> pl.DataFrame:
    digests = [f"{number:064x}" for number in range(len(ages))]
    return pl.DataFrame(
        {"index": range(len(ages)), "age": ages, "digest": digests, "group": groups or digests},
        schema_overrides={"index": pl.UInt32, "age": pl.UInt8},
    )


def catalogue(folder: Path, table: pl.DataFrame, digest: str = "c" * 64) -> Catalogue:
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / "catalogue.parquet")
    return Catalogue(digest=digest, name="faces", folder=folder, size=64, count=len(table), rejected=0)


def table_of(rows: Rows) -> pl.DataFrame:
    return pl.read_parquet(rows.table)


def test_each_age_gets_the_class_of_its_range(tmp_path: Path) -> None:
    ages = [2, 5, 10, 14, 17, 22, 27, 33, 40, 50, 60, 70, 80, 116]
    rows = relabel(catalogue(tmp_path / "c", frame(ages)), LabelSettings(), fresh(tmp_path))
    assert table_of(rows)["label"].to_list() == list(range(14))
    assert table_of(rows).schema["label"] == pl.Int16
    assert rows.ranges.names == UTKFACE_RANGES
    assert (rows.count, rows.outside, rows.size, rows.name) == (14, 0, 64, "faces")
    assert rows.pixels == tmp_path / "c" / "pixels.npy"


def test_classes_are_not_in_the_order_of_their_names_as_text(tmp_path: Path) -> None:
    rows = relabel(catalogue(tmp_path / "c", frame([4, 12, 85])), LabelSettings(), fresh(tmp_path))
    assert table_of(rows)["label"].to_list() == [1, 3, 13]
    as_text = sorted(UTKFACE_RANGES)
    assert [as_text.index(name) for name in ("3-5", "11-14", "over80")] != [1, 3, 13]


def test_rows_outside_all_ranges_are_left_out_counted_and_kept(tmp_path: Path) -> None:
    settings = LabelSettings(ranges=("10-19", "20-29"))
    rows = relabel(catalogue(tmp_path / "c", frame([9, 10, 29, 30])), settings, fresh(tmp_path))
    outside = pl.read_parquet(rows.table.parent / "outside.parquet")
    assert table_of(rows)["age"].to_list() == [10, 29]
    assert outside["age"].to_list() == [9, 30]
    assert (rows.count, rows.outside) == (2, 2)


def test_no_row_inside_the_ranges_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the 2 photographs has an age from '90-95' to 'over95'"):
        relabel(catalogue(tmp_path / "c", frame([9, 10])), LabelSettings(ranges=("90-95", "over95")), fresh(tmp_path))


COPIES = frame([20, 24, 30, 8, 8], ["a", "a", "a", "b", "b"])


@pytest.mark.parametrize(
    ("conflicts", "ages", "dropped", "altered"),
    [("keep", [20, 24, 30, 8, 8], 0, 0), ("drop", [8, 8], 3, 0), ("median", [24, 24, 24, 8, 8], 0, 2)],
)
def test_copies_that_disagree_are_kept_dropped_or_given_one_age(
    conflicts: str, ages: list[int], dropped: int, altered: int
) -> None:
    settled, counts = settle(COPIES, AgeRanges.of("utkface"), LabelSettings(conflicts=conflicts))
    assert settled["age"].to_list() == ages
    assert settled.schema == COPIES.schema
    assert counts == {"groups": 1, "groups_across_ranges": 1, "rows": 3, "dropped": dropped, "changed": altered}


def test_a_median_between_two_years_is_rounded_up() -> None:
    pair = frame([20, 25], ["a", "a"])
    settled, _ = settle(pair, AgeRanges.of("utkface"), LabelSettings(conflicts="median"))
    assert settled["age"].to_list() == [23, 23]


def test_conflicts_within_a_range_do_not_count_as_across_ranges() -> None:
    _, counts = settle(frame([23, 24], ["a", "a"]), AgeRanges.of("utkface"), LabelSettings())
    assert (counts["groups"], counts["groups_across_ranges"]) == (1, 0)


def test_conflicts_are_counted_beside_the_table(tmp_path: Path) -> None:
    rows = relabel(catalogue(tmp_path / "c", COPIES), LabelSettings(conflicts="median"), fresh(tmp_path))
    assert json.loads((rows.table.parent / "conflicts.json").read_text()) == {
        "groups": 1, "groups_across_ranges": 1, "rows": 3, "dropped": 0, "changed": 2,
    }  # fmt: skip


def test_another_order_of_the_store_is_another_table_with_the_same_digest(tmp_path: Path) -> None:
    reordered = COPIES.reverse().with_columns(pl.int_range(5, dtype=pl.UInt32).alias("index"))
    first = relabel(catalogue(tmp_path / "one", COPIES), LabelSettings(), fresh(tmp_path))
    second = relabel(catalogue(tmp_path / "two", reordered), LabelSettings(), fresh(tmp_path))
    assert first.digest == second.digest
    assert first.table != second.table
    assert table_of(second)["index"].to_list() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("column", ["digest", "age", "group", "label"])
def test_the_digest_covers_content_labels_and_ranges(column: str) -> None:
    ranges = AgeRanges.of("utkface")
    rows = COPIES.with_columns(class_column(ranges).alias("label"))
    last = pl.int_range(pl.len()) == 4
    value = pl.lit("x") if column in ("digest", "group") else pl.lit(7).cast(rows.schema[column])
    changed = rows.with_columns(pl.when(last).then(value).otherwise(pl.col(column)).alias(column))
    digest = rows_digest(rows, ranges, 64)
    assert digest != rows_digest(changed, ranges, 64)
    assert digest == rows_digest(rows.sample(fraction=1.0, shuffle=True, seed=3), ranges, 64)
    assert digest == rows_digest(rows.with_columns(pl.lit("elsewhere").alias("path")), ranges, 64)
    assert digest != rows_digest(rows, ranges, 65)
    assert digest != rows_digest(rows, AgeRanges.of(("1-2", "3-99")), 64)


def test_a_missing_or_foreign_table_is_named(tmp_path: Path) -> None:
    lost = Catalogue(digest="c" * 64, name="lost", folder=tmp_path / "lost", size=64, count=1, rejected=0)
    with pytest.raises(DataError, match=r"catalogue\.parquet: the table cannot be read"):
        relabel(lost, LabelSettings(), fresh(tmp_path))
    with pytest.raises(DataError, match="the table has no column 'group'"):
        relabel(catalogue(tmp_path / "c", COPIES.drop("group")), LabelSettings(), fresh(tmp_path))
    (tmp_path / "lost").mkdir()
    lost.table.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="the table cannot be read"):
        relabel(lost, LabelSettings(), fresh(tmp_path))
