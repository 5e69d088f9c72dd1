from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from bundles import make_rows, pictures, seen
from chips import real_chips

from agepipe.core.errors import LeakageError
from agepipe.data.groups import across
from agepipe.model.lineage import Overlap, overlap, refuse
from agepipe.model.phash import perceptual_hashes

AGES = np.random.default_rng(5).integers(1, 60, 40)


def reencoded(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Each picture saved as JPEG and read again."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", picture, options)[1], cv2.IMREAD_COLOR) for picture in pixels])


def found(lineage: pl.DataFrame, rows: object) -> Overlap:
    return overlap(lineage, pl.read_parquet(rows.table))  # type: ignore[attr-defined]


def test_the_same_file_is_seen_by_content(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 40)
    result = found(seen(rows, "chosen", 7), rows)
    assert (result.count, result.by_content, result.by_appearance) == (7, 7, 0)
    assert result.seen.tolist() == [True] * 7 + [False] * 33
    assert result.roles == {"chosen": 7}
    assert len(result.examples) == 5
    assert result.examples[0].endswith("_0_0_0.jpg (chosen)")


@pytest.mark.parametrize("quality", [90, 60])
def test_a_copy_saved_again_is_seen_by_appearance(tmp_path: Path, quality: int) -> None:
    pixels = pictures(AGES, 64, 1, 0.05)
    fitted = make_rows(tmp_path / "fitted", size=64, pixels=pixels, ages=AGES)
    copies = make_rows(tmp_path / "copies", size=64, pixels=reencoded(pixels, quality), ages=AGES)
    result = found(seen(fitted), copies)
    assert (result.by_content, result.by_appearance) == (0, 40)
    assert result.roles == {"fitted": 40}


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copy_that_is_mirrored_or_turned_by_quarters_is_seen(tmp_path: Path, mirrored: bool, turns: int) -> None:
    pixels = pictures(AGES, 64, 1, 0.05)
    copies = np.ascontiguousarray(np.rot90(pixels[:, :, ::-1] if mirrored else pixels, turns, axes=(1, 2)))
    fitted = make_rows(tmp_path / "fitted", size=64, pixels=pixels, ages=AGES)
    again = make_rows(tmp_path / "again", size=64, pixels=reencoded(copies, 80), ages=AGES)
    assert found(seen(fitted), again).by_appearance == 40


def test_a_copy_is_seen_beside_rows_that_are_the_same_file(tmp_path: Path) -> None:
    """Looks are compared for the rows whose file is another, however many files are the same."""
    pixels = pictures(AGES, 64, 1, 0.05)
    fitted = make_rows(tmp_path / "fitted", size=64, pixels=pixels, ages=AGES)
    mixed = np.concatenate([pixels[:10], reencoded(pixels[10:30], 75), pictures(AGES[30:], 64, 2, 0.05)])
    rows = make_rows(tmp_path / "mixed", size=64, pixels=mixed, ages=AGES)
    lineage = seen(fitted).with_columns(
        role=pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("chosen")).otherwise("role")
    )
    result = found(lineage, rows)
    assert (result.by_content, result.by_appearance, result.count) == (10, 20, 30)
    assert result.seen.tolist() == [True] * 30 + [False] * 10
    assert result.roles == {"fitted": 10, "chosen": 20}


@pytest.mark.parametrize(
    ("bits", "seen_before", "bound"), [(0, 1, True), (20, 1, True), (21, 0, True), (24, 0, True), (25, 0, False)]
)
def test_a_split_binds_all_looks_that_a_lineage_recognises_and_some_further_apart(
    bits: int, seen_before: int, bound: bool
) -> None:
    look = np.random.default_rng(0).integers(0, 256, 32, dtype=np.uint8)
    change = np.packbits(np.arange(256) < bits)
    fitted = pl.DataFrame({"digest": ["a"], "look": [look.tobytes()], "role": ["fitted"]})
    rows = pl.DataFrame({"digest": ["b"], "look": [(look ^ change).tobytes()]})
    assert overlap(fitted, rows).by_appearance == seen_before
    assert across(fitted, rows) == ([("b", "a")] if bound else [])


def test_other_pictures_are_not_seen(tmp_path: Path) -> None:
    fitted = make_rows(tmp_path / "fitted", size=64, pixels=pictures(AGES, 64, 1, 0.05), ages=AGES)
    other = make_rows(tmp_path / "other", size=64, pixels=pictures(AGES, 64, 2, 0.05), ages=AGES)
    assert found(seen(fitted), other).count == 0


def test_the_gravest_role_counts(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 6)
    lineage = pl.concat([seen(rows, "fitted", 2), seen(rows, "calibrated"), seen(rows, "chosen", 4)])
    assert found(lineage, rows).roles == {"fitted": 2, "chosen": 2, "calibrated": 2}


def test_a_lineage_without_looks_still_knows_files(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 6)
    lineage = seen(rows, first=3).with_columns(pl.lit(None, dtype=pl.Binary).alias("look"))
    assert found(lineage, rows).by_content == 3


def test_nothing_seen_stops_nothing(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 6)
    empty = seen(rows).clear()
    assert found(empty, rows).count == 0
    refuse(found(empty, rows))


def test_the_refusal_says_how_many_which_and_what_to_do(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 12)
    with pytest.raises(LeakageError) as caught:
        refuse(found(seen(rows, "fitted", 6), rows), "model abc")
    for words in ("model abc has seen 6 of the 12 rows", "6 fitted", "faces/", "_0_0_4.jpg (fitted), ...", "--exclude"):
        assert words in str(caught.value)


def test_no_two_different_real_photographs_count_as_copies(sample_archive: Path) -> None:
    chips = real_chips(sample_archive)[0]
    pixels = np.stack([cv2.resize(chip, (108, 108), interpolation=cv2.INTER_AREA) for chip in chips])
    half = len(pixels) // 2
    digests = [str(k) for k in range(len(pixels))]
    table = pl.DataFrame({"digest": digests, "look": perceptual_hashes(pixels), "role": ["fitted"] * len(pixels)})
    assert overlap(table[:half], table[half:]).count <= half // 100
    again = table.with_columns(
        pl.Series("look", perceptual_hashes(reencoded(pixels, 50))), digest=pl.col("digest") + "x"
    )
    assert overlap(table, again).by_appearance == len(pixels)
