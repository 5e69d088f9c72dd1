"""Laws 2 and 3: test rows are locked away, copies stay together, and what an earlier split placed stays put."""

from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from folders import fresh
from hypothesis import given, settings
from hypothesis import strategies as st

from agepipe.config.stages import SplitSettings
from agepipe.core.errors import ConfigError, DataError, LeakageError
from agepipe.data.groups import MEMBERS
from agepipe.data.records import Partition, Rows
from agepipe.data.split import check_apart, members_digest, place, read_members, split
from agepipe.model.ages import AgeRanges

RANGES = AgeRanges.of("utkface")
NOTHING = pl.DataFrame(schema=MEMBERS)


def name(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()


def look(*parts: object) -> bytes:
    """An appearance of its own for each photograph: two such differ in some 128 bits."""
    return sha256(repr(("look", *parts)).encode()).digest()


def rows_of(sizes: list[tuple[int, int]], salt: str = "") -> pl.DataFrame:
    """Rows of groups, given by (class, number of copies); every copy has its own digest and look."""
    found = []
    for number, (label, copies) in enumerate(sizes):
        digests = sorted(name(salt, number, copy) for copy in range(copies))
        found += [(digest, digests[0], look(digest), label) for digest in digests]
    frame = pl.DataFrame(
        found, schema={"digest": pl.String, "group": pl.String, "look": pl.Binary, "label": pl.Int16}, orient="row"
    )
    return frame.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("index"))


def many(groups: int = 400, seed: int = 0, classes: int = 5) -> pl.DataFrame:
    random = Random(seed)
    return rows_of([(random.randrange(classes), random.choice([1, 1, 1, 2, 4])) for _ in range(groups)], str(seed))


SIZES = st.lists(st.tuples(st.integers(0, 13), st.integers(1, 4)), min_size=2, max_size=60).filter(
    lambda sizes: max(np.bincount([label for label, _ in sizes])) > 1
)


def saved(frame: pl.DataFrame, folder: Path) -> Rows:
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "rows.parquet")
    digest = name(sorted(zip(frame["digest"], frame["label"], strict=True)))
    files = {"table": folder / "rows.parquet", "pixels": folder / "pixels.npy"}
    return Rows(digest=digest, name="faces", size=64, count=len(frame), ranges=RANGES, **files)


def tables(partition: Partition) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.read_parquet(partition.development.table), pl.read_parquet(partition.test.table)


def sides(frame: pl.DataFrame, share: float = 0.2, seed: int = 1, before: pl.DataFrame = NOTHING) -> dict[str, str]:
    placed, _, _ = place(frame, SplitSettings(test=share, seed=seed), before)
    return dict(zip(placed["digest"], placed["side"], strict=True))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.floats(0.05, 0.8), st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
def test_split_ignores_order_and_paths_keeps_groups_whole_and_shares_close(
    sizes: list[tuple[int, int]], share: float, seed: int, random: Random
) -> None:
    frame = rows_of(sizes)
    found = sides(frame, share, seed)
    order = random.sample(range(len(frame)), k=len(frame))
    elsewhere = frame[order].with_columns(pl.lit("elsewhere").alias("path"))
    assert sides(elsewhere, share, seed) == found
    placed = frame.with_columns(pl.Series("side", [found[digest] for digest in frame["digest"]]))
    assert placed.group_by("group").agg(pl.col("side").n_unique())["side"].max() == 1
    for (label,), part in placed.group_by("label"):
        groups = part.group_by("group").agg(pl.len(), pl.col("side").first())
        test = int(groups.filter(pl.col("side") == "test")["len"].sum())
        assert abs(test - share * len(part)) <= groups["len"].max(), label
        assert (groups["side"].n_unique() == 2) == (len(groups) > 1)


def test_many_single_rows_come_within_half_a_row_of_the_share() -> None:
    frame = rows_of([(label, 1) for label in range(14) for _ in range(101 + label)])
    found = sides(frame, 0.2)
    for (label,), part in frame.group_by("label"):
        test = sum(found[digest] == "test" for digest in part["digest"])
        assert abs(test - 0.2 * len(part)) <= 0.5, label


def test_where_no_group_fits_the_share_the_smallest_is_drawn() -> None:
    for seed in range(5):
        frame = rows_of([(0, 4), (0, 4), (0, 1), (0, 4)], str(seed))
        test = [digest for digest, side in sides(frame, 0.03, seed).items() if side == "test"]
        assert test == [name(str(seed), 2, 0)]


def test_another_seed_draws_others() -> None:
    frame = many()
    one, two = sides(frame, seed=1), sides(frame, seed=2)
    assert one != two
    assert sum(side == "test" for side in one.values()) == pytest.approx(0.2 * len(frame), abs=10)


def test_a_range_without_rows_or_with_one_group_is_no_obstacle() -> None:
    found = sides(rows_of([(0, 1)] * 30 + [(13, 1)]), 0.3)
    assert found[name("", 30, 0)] == "development"


def test_one_side_empty_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"split\.test is 0\.2, but 3 rows in 2 groups .* leave one side empty"):
        sides(rows_of([(0, 1), (1, 2)]))


def test_a_group_that_spans_ranges_is_whole() -> None:
    frame = many().with_columns(pl.Series("label", Random(3).choices(range(5), k=len(many())), dtype=pl.Int16))
    placed, _, _ = place(frame, SplitSettings(), NOTHING)
    assert placed.group_by("group").agg(pl.col("side").n_unique())["side"].max() == 1


def test_looks_bind_what_the_catalogue_has_not_grouped() -> None:
    frame = many(200)
    first, second = frame["look"][0], bytearray(frame["look"][0])
    second[0] ^= 0b111
    other = (frame["group"] != frame["group"][0]).arg_true()[0]
    looks = frame["look"].to_list()
    looks[other] = bytes(second)
    assert looks[0] == first
    for seed in range(6):
        bound, _, _ = place(frame.with_columns(pl.Series("look", looks)), SplitSettings(seed=seed), NOTHING)
        assert bound["group"][0] == bound["group"][other]
        assert bound["side"][0] == bound["side"][other]
        assert bound["group"][0] == min(bound.filter(pl.col("group") == bound["group"][0])["digest"])


def test_the_records_of_development_hold_no_test_row(tmp_path: Path) -> None:
    frame = many()
    partition = split(saved(frame, tmp_path), SplitSettings(), fresh(tmp_path))
    development, test = tables(partition)
    assert len(development) + len(test) == len(frame)
    assert not set(development["digest"]) & set(test["digest"])
    assert not set(development["group"]) & set(test["group"])
    assert not set(development["index"]) & set(test["index"])
    assert (partition.development.count, partition.test.count) == (len(development), len(test))
    assert partition.development.ranges == RANGES
    check_apart(development, test)


def test_a_split_again_by_rows_instead_of_groups_is_caught(tmp_path: Path) -> None:
    development, test = tables(split(saved(many(), tmp_path), SplitSettings(), fresh(tmp_path)))
    everything = pl.concat([development, test]).sample(fraction=1.0, shuffle=True, seed=5)
    cut = len(everything) // 5
    with pytest.raises(LeakageError, match="test rows are copies of development rows"):
        check_apart(everything[cut:], everything[:cut])
    with pytest.raises(LeakageError, match=f"1 of {len(test)} test rows are the same files as development rows"):
        check_apart(pl.concat([development, test[:1]]), test)


def test_digest_is_made_of_content(tmp_path: Path) -> None:
    frame = many()
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=4).with_columns(pl.lit("there").alias("path"))
    first = split(saved(frame, tmp_path / "a"), SplitSettings(), fresh(tmp_path))
    second = split(saved(shuffled, tmp_path / "b"), SplitSettings(), fresh(tmp_path))
    assert first.members != second.members
    assert first.digest == second.digest
    assert first.test.digest == second.test.digest
    for other in (SplitSettings(seed=21), SplitSettings(test=0.3)):
        assert split(saved(frame, tmp_path / "a"), other, fresh(tmp_path)).digest != first.digest


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(0, 1000), st.floats(0.1, 0.6), st.randoms(use_true_random=False))
def test_a_source_that_grows_keeps_the_sides(
    sizes: list[tuple[int, int]], more: list[tuple[int, int]], seed: int, share: float, random: Random
) -> None:
    old, new = rows_of(sizes, "old"), rows_of(more, "new")
    chosen = SplitSettings(test=share, seed=seed)
    _, before, _ = place(old, chosen, NOTHING)
    kept = dict(zip(before["digest"], before["side"], strict=True))
    grown = pl.concat([old, new])[random.sample(range(len(old) + len(new)), k=len(old) + len(new))]
    placed, after, left_out = place(grown, chosen, before)
    found = dict(zip(placed["digest"], placed["side"], strict=True))
    assert {digest: found[digest] for digest in kept} == kept
    assert len(left_out) == 0
    assert set(after["digest"]) == set(grown["digest"])
    check_apart(placed.filter(pl.col("side") == "development"), placed.filter(pl.col("side") == "test"))


def test_extending_by_nothing_changes_nothing(tmp_path: Path) -> None:
    rows = saved(many(), tmp_path)
    first = split(rows, SplitSettings(), fresh(tmp_path))
    again = split(rows, SplitSettings(), fresh(tmp_path), first.members)
    assert again.digest == first.digest
    assert again.earlier == members_digest(read_members(first.members))
    assert first.earlier is None


def test_extension_is_drawn_to_the_wanted_share_of_all_rows(tmp_path: Path) -> None:
    old, new = rows_of([(0, 1)] * 200, "old"), rows_of([(0, 1)] * 300, "new")
    first = split(saved(old, tmp_path / "a"), SplitSettings(test=0.2), fresh(tmp_path))
    grown = saved(pl.concat([old, new]), tmp_path / "b")
    second = split(grown, SplitSettings(test=0.3), fresh(tmp_path), first.members)
    assert (first.test.count, second.test.count) == (40, 150)
    kept = split(grown, SplitSettings(test=0.3, extend=False), fresh(tmp_path), first.members)
    assert kept.earlier is None


def test_copies_of_placed_photographs_follow_them() -> None:
    old = rows_of([(0, 1)] * 40, "old")
    _, before, _ = place(old, SplitSettings(), NOTHING)
    in_test, in_development = (
        before.filter(pl.col("side") == side).row(0, named=True) for side in ("test", "development")
    )
    copies = rows_of([(0, 1)] * 2, "copies").with_columns(
        pl.Series("look", [in_test["look"], in_development["look"]]),
    )
    found = sides(pl.concat([old, copies]), before=before)
    assert [found[digest] for digest in copies["digest"]] == ["test", "development"]
    # the originals are gone from the source, yet their copies are still known by their looks
    found = sides(pl.concat([old.filter(~pl.col("digest").is_in([in_test["digest"]])), copies]), before=before)
    assert found[copies["digest"][0]] == "test"


def test_a_placed_photograph_and_its_new_copies_are_one_group() -> None:
    """Also where a copy's digest is the smaller, which names the group: folds and intervals go by it."""
    old = rows_of([(0, 1)] * 40, "old")
    _, before, _ = place(old, SplitSettings(), NOTHING)
    copies = rows_of([(0, 1)] * 40, "copies").with_columns(old["look"])
    smaller = (copies["digest"] < old["digest"]).sum()
    assert 10 < smaller < 30
    placed, members, _ = place(pl.concat([old, copies]), SplitSettings(), before)
    for found in (placed, members):
        bound = found.group_by("look").agg(pl.col("group").n_unique(), pl.col("side").n_unique(), pl.len())
        assert bound.select("group", "side", "len").unique().rows() == [(1, 1, 2)]
    assert placed["group"].n_unique() == 40


def test_a_photograph_that_ties_both_sides_is_left_out_and_counted(tmp_path: Path) -> None:
    old = rows_of([(0, 1)] * 40, "old")
    first = split(saved(old, tmp_path / "a"), SplitSettings(), fresh(tmp_path))
    before = read_members(first.members)
    one, two = (before.filter(pl.col("side") == side)["digest"][0] for side in ("test", "development"))
    tie = rows_of([(0, 1)], "tie")
    tied_name = min(one, two, tie["digest"][0])
    bound = pl.col("digest").is_in([one, two, tie["digest"][0]])
    grown = pl.concat([old, tie]).with_columns(pl.when(bound).then(pl.lit(tied_name)).otherwise("group").alias("group"))
    second = split(saved(grown, tmp_path / "b"), SplitSettings(), fresh(tmp_path), first.members)
    development, test = tables(second)
    assert second.left_out == 1
    assert pl.read_parquet(second.members.parent / "left_out.parquet")["digest"].to_list() == tie["digest"].to_list()
    assert one in test["digest"]
    assert two in development["digest"]
    assert tie["digest"][0] not in pl.read_parquet(second.members)["digest"]
    check_apart(development, test)


def test_photographs_that_left_the_source_are_remembered() -> None:
    old = rows_of([(0, 1)] * 40, "old")
    _, before, _ = place(old, SplitSettings(), NOTHING)
    _, after, _ = place(old[10:], SplitSettings(), before)
    assert after.equals(before)


def test_what_is_no_split_is_refused(tmp_path: Path) -> None:
    rows = saved(many(20), tmp_path)
    with pytest.raises(DataError, match=r"gone\.parquet: the table cannot be read"):
        split(rows, SplitSettings(), fresh(tmp_path), tmp_path / "gone.parquet")
    many(3).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no column 'side'"):
        split(rows, SplitSettings(), fresh(tmp_path), tmp_path / "other.parquet")
    many(3).with_columns(pl.lit("left").alias("side")).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="side 'left' is neither 'test' nor 'development'"):
        split(rows, SplitSettings(), fresh(tmp_path), tmp_path / "other.parquet")


def test_digests_tell_which_side_each_row_lies_on(tmp_path: Path) -> None:
    rows = saved(many(40), tmp_path)
    _, members, _ = place(many(40), SplitSettings(test=0.5), NOTHING)
    exchanged = members.with_columns(pl.col("side").replace({"test": "development", "development": "test"}))
    assert members_digest(members) != members_digest(exchanged)
    parts = []
    for number, before in enumerate((members, exchanged)):
        before.write_parquet(tmp_path / f"{number}.parquet")
        parts.append(split(rows, SplitSettings(test=0.5), fresh(tmp_path), tmp_path / f"{number}.parquet"))
    assert parts[0].development.digest == parts[1].test.digest
    assert len({part.digest for part in parts}) == len({part.members.parent for part in parts}) == 2
