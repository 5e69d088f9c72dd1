"""Files with the same content and label are one photograph, however many there are and in whatever order they come."""

from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from folders import fresh
from photographs import chip_name, chips, jpeg, tar_of, zip_of
from test_ingest import SETTINGS, take

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, LabelSettings, SplitSettings
from agepipe.data import ingest as stage
from agepipe.data import journal
from agepipe.data.audit import audit
from agepipe.data.copies import photographs
from agepipe.data.labels import relabel
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Catalogue
from agepipe.data.split import split
from agepipe.model import phash
from agepipe.reports.data_text import notes
from flows import show

FOLDERS = (("UTKFace", 30), ("crop_part1", 12), ("aligned/UTKFace", 30), ("aligned/crop_part1", 12))
"""How Kaggle's copy of UTKFace repeats its photographs: all of them twice, and some four times."""


def nested(count: int = 30) -> dict[str, bytes]:
    """84 files of 30 photographs."""
    files = {chip_name(1 + number, number): jpeg(number) for number in range(count)}
    return {f"{folder}/{name}": files[name] for folder, share in FOLDERS for name in list(files)[:share]}


def rows_of(catalogue: Catalogue) -> list[dict[str, Any]]:
    """The table without the positions in the pixel store, in the order of the paths."""
    return pl.read_parquet(catalogue.table).drop("index").sort("path", "age").to_dicts()


def files(*labels: tuple[str, int, int | None, int | None]) -> pl.DataFrame:
    """Files of the content, age, gender and race given, named in their order."""
    schema = {"digest": pl.String, "age": pl.UInt8, "gender": pl.Int8, "race": pl.Int8}
    frame = pl.DataFrame(labels, schema=schema, orient="row")
    paths = [f"{row}.jpg" for row in range(len(labels))]
    return frame.with_columns(pl.Series("path", paths), pl.lit(None, dtype=pl.String).alias("folder"))


def told(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return photographs(frame).select("digest", "age", "gender", "race", "path", "copies").rows()


def test_files_with_one_content_and_label_become_one_row_with_all_paths() -> None:
    frame = files(("a", 30, 0, 2), ("b", 30, 0, 2), ("a", 30, 0, 2), ("a", 30, 0, 2))
    assert told(frame) == [("a", 30, 0, 2, "0.jpg", ["2.jpg", "3.jpg"]), ("b", 30, 0, 2, "1.jpg", [])]


@pytest.mark.parametrize("other", [(31, 0, 2), (30, 1, 2), (30, 0, 3)])
def test_files_that_contradict_each_other_stay_apart(other: tuple[int, int, int]) -> None:
    assert len(photographs(files(("a", 30, 0, 2), ("a", *other)))) == 2


def test_what_one_name_leaves_out_is_taken_from_the_others_where_these_agree() -> None:
    gaps = files(("a", 30, 0, None), ("a", 30, None, 2), ("a", 30, 0, 2), ("a", 31, None, None))
    assert told(gaps) == [("a", 30, 0, 2, "0.jpg", ["1.jpg", "2.jpg"]), ("a", 31, None, None, "3.jpg", [])]
    torn = files(("a", 30, 0, None), ("a", 30, 0, 2), ("a", 30, 0, 3), ("a", 30, 0, None))
    assert [row[3:] for row in told(torn)] == [(2, "1.jpg", []), (3, "2.jpg", []), (None, "0.jpg", ["3.jpg"])]


def test_a_class_folder_of_any_of_the_files_is_kept() -> None:
    frame = files(("a", 30, 0, 2), ("a", 30, 0, 2)).with_columns(folder=pl.Series([None, "28-33"]))
    assert photographs(frame)["folder"].to_list() == ["28-33"]


def test_the_order_of_the_files_changes_nothing_but_positions(tmp_path: Path, runtime: Runtime) -> None:
    members = {**nested(), f"x/{chip_name(77, 500, 1)}": jpeg(4), f"x/{chip_name(5, 501, race=9)}": jpeg(4)}
    turned = list(members.items())
    Random(1).shuffle(turned)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first = take(runtime, tar_of(tmp_path / "one" / "faces.tar", members))
    second = take(runtime, tar_of(tmp_path / "two" / "faces.tar", dict(turned)))
    assert second.digest == first.digest
    assert rows_of(second) == rows_of(first)


def test_nested_folders_hold_each_photograph_once(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "UTKFace", 30)
    plain = take(runtime, tmp_path / "UTKFace")
    catalogue = take(runtime, zip_of(tmp_path / "archive.zip", nested()))
    assert (plain.count, plain.copies) == (30, 0)
    assert (catalogue.count, catalogue.copies, catalogue.rejected) == (30, 54, 0)
    assert catalogue.digest == plain.digest
    table = pl.read_parquet(catalogue.table)
    paths = [*table["path"], *table["copies"].explode().drop_nulls()]
    assert sorted(paths) == sorted(f"archive.zip/{name}" for name in nested())
    pixels = open_pixels(catalogue.pixels, size=32)
    assert len(pixels) == 30
    alone = pl.read_parquet(plain.table).select("digest", "index").rows()
    stored = dict(table.select("digest", "index").rows())
    assert all((pixels[stored[digest]] == open_pixels(plain.pixels)[at]).all() for digest, at in alone)
    assert show.photographs(catalogue).replace("[bold]", "").replace("[/bold]", "") == "30 photographs in 84 files"
    assert "files" not in show.photographs(plain)


def test_rows_to_learn_from_and_test_rows_are_photographs(tmp_path: Path, runtime: Runtime) -> None:
    catalogue = take(runtime, zip_of(tmp_path / "archive.zip", nested()))
    rows = relabel(catalogue, LabelSettings(ranges=("1-15", "over15")), fresh(tmp_path))
    parts = split(rows, SplitSettings(test=0.2), fresh(tmp_path))
    assert (rows.count, parts.development.count + parts.test.count) == (30, 30)
    development, test = (pl.read_parquet(part.table)["digest"].to_list() for part in (parts.development, parts.test))
    assert len({*development, *test}) == 30


def test_the_share_of_rejects_is_one_of_files(tmp_path: Path, runtime: Runtime) -> None:
    archive = zip_of(tmp_path / "archive.zip", {**nested(), **{f"{n}.txt": b"text" for n in range(16)}})
    catalogue = take(runtime, archive, settings=IngestSettings(size=32, max_reject_share=0.16))
    assert take(runtime, archive, settings=IngestSettings(size=32, max_reject_share=0.16)) == catalogue
    assert (catalogue.count, catalogue.copies, catalogue.rejected) == (30, 54, 16)


def test_copies_across_chunks_and_a_kill_are_stored_once(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_CHUNK_PIXELS", 1)  # 8 files a chunk
    archive = tar_of(tmp_path / "faces.tar", nested())
    whole = take(runtime, archive)
    keep, added = journal.Journal.add, []

    def fails(self: journal.Journal, examined: stage.Examined) -> None:
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(len(examined.ledger))
        keep(self, examined)

    alone = runtime.model_copy(update={"workspace": tmp_path / "alone"})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(journal.Journal, "add", fails)
        take(alone, archive)
    resumed = take(alone, archive)
    assert {path.name: path.read_bytes() for path in resumed.folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole.folder.iterdir()
    }


def test_the_audit_counts_photographs_once_and_copies_as_files(tmp_path: Path, runtime: Runtime) -> None:
    members = {**nested(), f"3-5/{chip_name(4, 3)}": jpeg(3), f"over80/{chip_name(4, 3)}": jpeg(3)}
    members |= {f"UTKFace/{chip_name(90, 4)}": jpeg(4), "notes.txt": b"text"}
    found = audit(take(runtime, zip_of(tmp_path / "archive.zip", members)), LabelSettings())
    assert (found.files, found.usable, found.repeated, found.rejected) == (88, 31, 56, 1)
    assert sum(count for _, count in found.ages) == sum(tally.count for tally in found.ranges) == 31
    assert (found.exact.groups, found.exact.surplus, found.exact.ages) == (30, 57, 1)
    assert (found.foldered, found.misfiled) == (1, 1)
    assert any(note.startswith("56 files") for note in notes(found))


def test_copies_that_a_median_brings_to_one_label_become_one_row(tmp_path: Path, runtime: Runtime) -> None:
    members = {f"a/{chip_name(age, age)}": jpeg(1) for age in (20, 24, 30)} | {f"b/{chip_name(20, 9)}": jpeg(1)}
    catalogue = take(runtime, zip_of(tmp_path / "archive.zip", {**nested(), **members}), settings=SETTINGS)
    assert catalogue.count == 33
    rows = relabel(catalogue, LabelSettings(conflicts="median"), fresh(tmp_path))
    table = pl.read_parquet(rows.table)
    assert table["digest"].is_unique().all()
    assert rows.count == 30
    kept = relabel(catalogue, LabelSettings(conflicts="keep"), fresh(tmp_path))
    assert kept.count == 33


def test_near_duplicates_are_found_at_the_default_and_the_threshold_is_part_of_the_key(
    tmp_path: Path, runtime: Runtime
) -> None:
    """Copies that correlate by some 0.985, strangers by some 0.95: the default lies between them."""
    picture = cv2.imdecode(np.frombuffer(jpeg(1), np.uint8), cv2.IMREAD_COLOR).astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 1, (2, 24, 24, 1)).repeat(2, axis=1).repeat(2, axis=2)
    faded = 128 + (picture - picture.mean()) / 3
    grey = phash.luma(faded.astype(np.uint8)[None, :, :, ::-1])[0]
    members = {chip_name(30, 0): png(faded)}
    for number, wanted in enumerate((0.985, 0.95)):
        changed = faded + noise[number] * grey.std() * (1 / wanted**2 - 1) ** 0.5
        members[chip_name(31 + number, 1 + number)] = png(changed)
    archive = zip_of(tmp_path / "faces.zip", {f"{name}.png": data for name, data in members.items()})
    found = {threshold: take(runtime, archive, settings=IngestSettings(size=48, **threshold_of(threshold)))
             for threshold in (None, 0.92, 0.999)}  # fmt: skip
    groups = {threshold: pl.read_parquet(one.table)["group"].n_unique() for threshold, one in found.items()}
    assert groups == {None: 2, 0.92: 1, 0.999: 3}
    assert len({one.folder for one in found.values()}) == len({one.digest for one in found.values()}) == 3


def threshold_of(value: float | None) -> dict[str, float]:
    return {} if value is None else {"near_duplicate": value}


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.clip(picture, 0, 255).astype(np.uint8))[1].tobytes()
