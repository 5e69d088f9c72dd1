"""The second look finds cropped and turned copies of real photographs, and takes nobody for another."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from chips import real_chips
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from agepipe.config.stages import SplitSettings
from agepipe.data import groups
from agepipe.data.groups import MEMBERS
from agepipe.data.split import place
from agepipe.model.lineage import overlap
from agepipe.model.phash import near, perceptual_hashes, sketches
from agepipe.model.recognition import recognised

Pixels = NDArray[np.uint8]
COUNT = 60


@pytest.fixture(scope="module")
def chips(sample_archive: Path) -> Pixels:
    """Real chips of 200 px."""
    return np.stack(real_chips(sample_archive, step=700 // COUNT)[0][:COUNT])


def stored(chips: Pixels, change: Callable[[Pixels], Pixels] = lambda chip: chip) -> Pixels:
    return np.stack([cv2.resize(change(chip), (108, 108), interpolation=cv2.INTER_AREA) for chip in chips])


def cropped(chip: Pixels) -> Pixels:
    return chip[10:190, 10:190]


def cropped_more(chip: Pixels) -> Pixels:
    return chip[18:182, 18:182]


def turned(chip: Pixels, degrees: float = 7) -> Pixels:
    matrix = cv2.getRotationMatrix2D((99.5, 99.5), degrees, 1)
    return np.asarray(cv2.warpAffine(chip, matrix, (200, 200)), dtype=np.uint8)


def cut_on_two_sides(chip: Pixels) -> Pixels:
    return chip[12:, 12:]


def mirrored_and_cropped(chip: Pixels) -> Pixels:
    return np.ascontiguousarray(cropped(chip)[:, ::-1])


CHANGES = [cropped, turned, cut_on_two_sides, mirrored_and_cropped]


def table(pixels: Pixels, prefix: str, bits_alone: bool = False) -> pl.DataFrame:
    found = [look[:32] if bits_alone else look for look in perceptual_hashes(pixels)]
    return pl.DataFrame({"digest": [f"{prefix}{k:03d}" for k in range(len(found))], "look": found}).with_columns(
        pl.col("digest").alias("group"), pl.lit("fitted").alias("role"), (pl.int_range(pl.len()) % 2).alias("label")
    )


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_recognised_where_bits_alone_are_not_enough(
    chips: Pixels, change: Callable[[Pixels], Pixels]
) -> None:
    originals, copies = perceptual_hashes(stored(chips)), perceptual_hashes(stored(chips, change))
    assert (near(copies, originals) >= 0).mean() < 0.5
    found = recognised(sketches(copies), sketches(originals))
    assert (found == np.arange(COUNT)).mean() >= 0.93
    assert ((found == np.arange(COUNT)) | (found < 0)).all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 20), (20, 0), (20, 20)])
def test_half_of_the_copies_cut_by_a_tenth_at_any_corner_are_recognised(chips: Pixels, corner: tuple[int, int]) -> None:
    top, left = corner
    copies = stored(chips, lambda chip: chip[top : top + 180, left : left + 180])
    found = recognised(sketches(perceptual_hashes(copies)), sketches(perceptual_hashes(stored(chips))))
    assert (found == np.arange(COUNT)).mean() >= 0.5


def test_most_copies_turned_by_12_degrees_are_recognised(chips: Pixels) -> None:
    copies = stored(chips, lambda chip: turned(chip, 12))
    found = recognised(sketches(perceptual_hashes(copies)), sketches(perceptual_hashes(stored(chips))))
    assert (found == np.arange(COUNT)).mean() >= 0.85


def test_no_stranger_is_recognised(chips: Pixels) -> None:
    known = sketches(perceptual_hashes(stored(chips)))
    assert (recognised(known[: COUNT // 2], known[COUNT // 2 :]) == -1).all()


def test_a_split_asks_for_less_similarity_than_a_lineage(chips: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups.MARGIN > 0
    monkeypatch.setattr(groups, "MARGIN", 0.05)
    originals, copies = table(stored(chips), "a"), table(stored(chips, cropped_more), "b")
    bound = dict(groups.across(originals, copies))
    found = overlap(originals, copies).seen
    assert 0 < found.sum() < len(bound) - COUNT // 10
    assert set(copies["digest"].filter(pl.Series(found))) < set(bound)
    assert all(copy[1:] == original[1:] for copy, original in bound.items())


def test_looks_of_earlier_versions_and_none_at_all_are_never_recognised(chips: Pixels) -> None:
    known = perceptual_hashes(stored(chips[:4]))
    assert recognised(sketches(known), sketches([look[:32] for look in known])).tolist() == [-1] * 4
    mixed = [known[0][:32], *known[1:]]
    assert recognised(sketches(mixed), sketches(known)).tolist() == [-1, 1, 2, 3]
    assert recognised([], sketches(known)).tolist() == []
    assert recognised(sketches(known), []).tolist() == [-1] * 4


def test_a_model_knows_a_cropped_photograph_and_an_earlier_bundle_a_saved_one(chips: Pixels) -> None:
    rows = table(stored(chips, cropped), "copy")
    assert overlap(table(stored(chips), "seen"), rows).by_appearance >= 0.93 * COUNT
    earlier = table(stored(chips), "seen", bits_alone=True)
    saved = table(stored(chips, lambda chip: cv2.GaussianBlur(chip, (0, 0), 1.0)), "copy")
    assert overlap(earlier, saved).by_appearance == COUNT
    assert overlap(earlier, rows).by_appearance < 0.5 * COUNT


def test_no_cropped_copy_lies_across_a_split(chips: Pixels) -> None:
    frame = pl.concat([table(stored(chips), "a"), table(stored(chips, cropped), "b")])
    placed, _, left_out = place(frame, SplitSettings(test=0.4), pl.DataFrame(schema=MEMBERS))
    assert len(placed) == len(frame) and len(left_out) == 0
    parts = {side: placed.filter(pl.col("side") == side) for side in ("test", "development")}
    assert overlap(parts["development"], parts["test"]).count == 0
    sides = dict(placed.select("digest", "side").rows())
    found = recognised(
        sketches(table(stored(chips, cropped), "b")["look"].to_list()), sketches(perceptual_hashes(stored(chips)))
    )
    assert all(sides[f"b{k:03d}"] == sides[f"a{at:03d}"] for k, at in enumerate(found.tolist()) if at >= 0)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_a_lineage_recognises_in_any_orientation_a_split_has_bound(
    chips: Pixels, mirrored: bool, turns: int
) -> None:
    copies = stored(chips, lambda chip: np.ascontiguousarray(np.rot90(chip[:, ::-1] if mirrored else chip, turns)))
    originals, again = table(stored(chips), "a"), table(copies, "b")
    assert overlap(originals, again).by_appearance == COUNT
    placed, _, _ = place(pl.concat([originals, again]), SplitSettings(test=0.4), pl.DataFrame(schema=MEMBERS))
    sides = dict(placed.select("digest", "side").rows())
    assert [sides[f"b{k:03d}"] for k in range(COUNT)] == [sides[f"a{k:03d}"] for k in range(COUNT)]
    _, before, _ = place(originals, SplitSettings(test=0.4), pl.DataFrame(schema=MEMBERS))
    grown, _, left_out = place(pl.concat([originals, again]), SplitSettings(test=0.4), before)
    parts = {side: grown.filter(pl.col("side") == side) for side in ("test", "development")}
    assert len(left_out) == 0
    assert overlap(parts["development"], parts["test"]).count == 0


def test_every_copy_of_a_test_row_that_an_earlier_split_has_placed_across_is_left_out(chips: Pixels) -> None:
    upside = stored(chips[:1], lambda chip: chip[::-1])
    frame = pl.concat([table(stored(chips), "a"), table(upside, "b"), table(upside, "c")])
    before = frame.with_columns(
        side=pl.when(pl.col("digest") < "a020").then(pl.lit("test")).otherwise(pl.lit("development"))
    )
    grown = pl.concat([frame, table(upside, "d")])
    placed, _, left_out = place(grown, SplitSettings(test=0.3), before.select(list(MEMBERS)))
    assert sorted(left_out["digest"]) == ["b000", "c000", "d000"]
    parts = {side: placed.filter(pl.col("side") == side) for side in ("test", "development")}
    assert overlap(parts["development"], parts["test"]).count == 0


def test_a_row_that_an_earlier_split_has_placed_across_is_left_out_of_development(chips: Pixels) -> None:
    frame = pl.concat([table(stored(chips), "a"), table(stored(chips[:1], cropped), "b")])
    before = frame.with_columns(
        side=pl.when(pl.col("digest") < "a020").then(pl.lit("test")).otherwise(pl.lit("development"))
    )
    placed, members, left_out = place(frame, SplitSettings(test=0.3), before.select(list(MEMBERS)))
    assert left_out["digest"].to_list() == ["b000"]
    assert "b000" not in placed["digest"].to_list()
    assert dict(members.select("digest", "side").rows())["b000"] == "development"


def _blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


class Noting(list[bytes]):
    """Sketches that note how many threads numpy has when they are read."""

    threads: frozenset[int] = frozenset()

    def __iter__(self) -> Iterator[bytes]:
        self.threads |= _blas_threads()
        return super().__iter__()


def test_numpy_has_one_thread_meanwhile() -> None:
    # two processes whose threads waited for each other awake took minutes instead of seconds
    given = Noting()
    with threadpool_limits(2, "blas"):
        recognised(given, [])
        assert _blas_threads() == {2}
    assert given.threads == {1}
