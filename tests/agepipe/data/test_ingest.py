import io
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from photographs import chip_name, chips, jpeg, png_bomb, tar_of

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.core.errors import SourceError, TooManyRejectsError
from agepipe.data import ingest as stage
from agepipe.data.ingest import SCHEMA
from agepipe.data.pixel_store import open_pixels
from agepipe.data.records import Catalogue
from agepipe.data.sources import fingerprint
from agepipe.model.imaging import decode, fit
from tasks.data import ingest

SETTINGS = IngestSettings(size=32)


def take(runtime: Runtime, *data: Path, settings: IngestSettings = SETTINGS) -> Catalogue:
    return ingest(fingerprint(SourceSettings(data=tuple(map(str, data))), runtime), settings, runtime)


def rejects(catalogue: Catalogue) -> dict[str, str]:
    return dict(pl.read_parquet(catalogue.rejects).select("path", "reason").rows())


def work_folder(runtime: Runtime) -> Path:
    (found,) = (runtime.workspace / "datasets").glob(".*-progress")
    return found


def everything(catalogue: Catalogue) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in catalogue.folder.iterdir()}


def test_rows_and_pictures_belong_together(tmp_path: Path, runtime: Runtime) -> None:
    made = chips(tmp_path / "faces", 20)
    catalogue = take(runtime, tmp_path / "faces")
    table = pl.read_parquet(catalogue.table)
    pixels = open_pixels(catalogue.pixels, size=32)
    assert dict(table.schema) == SCHEMA
    assert len(pixels) == 20
    assert table["index"].to_list() == list(range(20))
    assert table["path"].to_list() == sorted(path.name for path in made)
    for row in table.rows(named=True):
        expected = fit(decode((tmp_path / "faces" / row["path"]).read_bytes()), 32)
        assert np.array_equal(pixels[row["index"]], expected)
        assert row["age"] == int(row["path"].split("_")[0])
        assert (row["width"], row["height"]) == (48, 48)
        assert len(row["look"]) == 32 + 275
        assert 0 < row["brightness"] < 1 and row["sharpness"] > 0


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_gives_what_its_folder_gives(tmp_path: Path, runtime: Runtime, kind: str) -> None:
    chips(tmp_path / "faces" / "UTKFace", 12)
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "faces"))
    folder, packed = take(runtime, tmp_path / "faces"), take(runtime, archive)
    assert packed.digest == folder.digest
    assert packed.name == "packed"
    paths = pl.read_parquet(packed.table)["path"].to_list()
    assert all(path.startswith(f"{archive.name}/") and path.endswith(".jpg.chip.jpg") for path in paths)
    assert not any(path.suffix == ".jpg" for path in runtime.workspace.rglob("*"))


def test_the_digest_is_of_content_and_labels_alone(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "a", 6)
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "deep" / "er")
    first = take(runtime, tmp_path / "a")
    assert take(runtime, tmp_path / "b").digest == first.digest
    assert take(runtime, tmp_path / "a", settings=IngestSettings(size=40)).digest != first.digest
    one = next((tmp_path / "b" / "deep" / "er").iterdir())
    one.rename(one.with_name(chip_name(99, 0)))
    assert take(runtime, tmp_path / "b").digest != first.digest


def test_folders_named_by_class_are_kept_beside_the_age_of_the_name(tmp_path: Path, runtime: Runtime) -> None:
    for number, folder in enumerate(("0", "3-5", "over80", "UTKFace")):
        chips(tmp_path / "faces" / folder, 2, first=100 * number)
    table = pl.read_parquet(take(runtime, tmp_path / "faces").table)
    assert Counter(table["folder"].to_list()) == {"0": 2, "3-5": 2, "over80": 2, None: 2}
    assert set(table["age"].to_list()) == {1, 2}


def test_copies_share_a_group_named_by_the_smallest_digest(tmp_path: Path, runtime: Runtime) -> None:
    made = chips(tmp_path / "faces", 4)
    (tmp_path / "faces" / chip_name(77, 999)).write_bytes(made[2].read_bytes())
    table = pl.read_parquet(take(runtime, tmp_path / "faces").table)
    assert table["group"].n_unique() == 4
    pair = table.filter(pl.len().over("group") == 2)
    assert pair["age"].to_list() == [3, 77]
    assert pair["group"].to_list() == pair["digest"].to_list()


BAD: dict[str, tuple[bytes, str]] = {
    chip_name(30, 1): (jpeg(1)[: len(jpeg(1)) // 2], "truncated"),
    chip_name(30, 2): (b"this is text, whatever its name says", "not an image"),
    chip_name(30, 3): (jpeg(3, 1, 1), "too small"),
    "30_0_2_20170104020210479.png": (png_bomb(), "too large"),
    "holiday.jpg": (jpeg(4), "unparsable name"),
    "x_0_2_20170104020210475.jpg": (jpeg(5), "no age"),
    chip_name(0, 6): (jpeg(6), "age out of range"),
    chip_name(200, 7): (jpeg(7), "age out of range"),
    "README.txt": (b"about these faces", "not an image"),
}


def members(kind: str) -> dict[str, tuple[bytes, str]]:
    """Bad members that only archives can have."""
    inner = {"inner.zip": (b"PK", "not an image")}
    return {"../x.jpg": (jpeg(8), "path leaves the archive"), **(inner if kind != "folder" else {})}


def plant(tmp_path: Path, kind: str) -> tuple[Path, dict[str, str]]:
    """40 good chips and every kind of bad one, in a folder or an archive; the path and what must be rejected why."""
    good = chips(tmp_path / "faces", 40)
    if kind == "folder":
        for name, (data, _) in BAD.items():
            (tmp_path / "faces" / name).write_bytes(data)
        (tmp_path / "faces" / chip_name(31, 9)).symlink_to(good[0])
        return tmp_path / "faces", {**{name: reason for name, (_, reason) in BAD.items()}, chip_name(31, 9): "link"}
    files = {path.name: path.read_bytes() for path in good}
    bad = {**BAD, **members(kind)}
    files |= {name: data for name, (data, _) in bad.items()}
    archive = tmp_path / f"faces.{kind}"
    (_write_zip if kind == "zip" else _write_tar)(archive, files)
    return archive, {f"{archive.name}/{name}": reason for name, (_, reason) in bad.items()} | {
        f"{archive.name}/link.jpg": "link"
    }


def _write_tar(archive: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)


def _write_zip(archive: Path, files: dict[str, bytes]) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
        out.writestr(link, "/etc/passwd")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_every_bad_file_is_rejected_with_its_reason(tmp_path: Path, runtime: Runtime, kind: str) -> None:
    path, expected = plant(tmp_path, kind)
    catalogue = take(runtime, path, settings=IngestSettings(size=32, max_reject_share=0.5))
    assert rejects(catalogue) == expected
    assert (catalogue.count, catalogue.rejected) == (40, len(expected))
    assert pl.read_parquet(catalogue.rejects)["detail"].str.len_chars().min() > 0


def test_too_many_rejects_stop_with_counts_and_the_table(tmp_path: Path, runtime: Runtime) -> None:
    path, expected = plant(tmp_path, "folder")
    with pytest.raises(TooManyRejectsError, match=r"10 of 50 files .*2 age out of range.*rejects\.parquet") as caught:
        take(runtime, path, settings=IngestSettings(size=32, max_reject_share=0.1))
    (kept,) = (runtime.workspace / "datasets").glob("*/rejects.parquet")
    assert str(kept) in str(caught.value)
    assert len(pl.read_parquet(kept)) == len(expected)


def test_a_higher_share_goes_on_without_decoding_and_a_lower_one_still_refuses(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = plant(tmp_path, "folder")
    with pytest.raises(TooManyRejectsError):
        take(runtime, path, settings=IngestSettings(size=32, max_reject_share=0.1))
    monkeypatch.setattr(stage, "examine", None)
    assert take(runtime, path, settings=IngestSettings(size=32, max_reject_share=0.5)).count == 40
    with pytest.raises(TooManyRejectsError):
        take(runtime, path, settings=IngestSettings(size=32, max_reject_share=0.1))


def test_no_usable_photograph_is_an_error(tmp_path: Path, runtime: Runtime) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "holiday.jpg").write_bytes(jpeg(1))
    with pytest.raises(SourceError, match=r"no usable photograph \(1 unparsable name"):
        take(runtime, tmp_path / "faces", settings=IngestSettings(size=32, max_reject_share=0.99))


def test_an_empty_archive_is_an_error(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(SourceError, match="no usable photograph"):
        take(runtime, tar_of(tmp_path / "empty.tar", {}))


def test_a_side_above_65535_px_is_kept(tmp_path: Path, runtime: Runtime) -> None:
    import cv2

    (tmp_path / "faces").mkdir()
    assert cv2.imwrite(str(tmp_path / "faces" / "25_0_2_20170104020210475.png"), np.zeros((32, 70_000, 3), np.uint8))
    table = pl.read_parquet(take(runtime, tmp_path / "faces").table)
    assert table.select("width", "height").rows() == [(70_000, 32)]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_name_that_is_not_utf8_is_rejected_with_an_escaped_path(tmp_path: Path, runtime: Runtime, kind: str) -> None:
    strange = os.fsdecode(b"25_0_2_20170104020210475_caf\xe9.jpg")
    made = chips(tmp_path / "faces", 30)
    (tmp_path / "faces" / strange).write_bytes(jpeg(99))
    members = {path.name: path.read_bytes() for path in [*made, tmp_path / "faces" / strange]}
    path = tmp_path / "faces" if kind == "folder" else tar_of(tmp_path / "faces.tar", members)
    catalogue = take(runtime, path)
    prefix = "" if kind == "folder" else "faces.tar/"
    assert rejects(catalogue) == {f"{prefix}25_0_2_20170104020210475_caf\\xe9.jpg": "unparsable name"}
    assert catalogue.count == 30


def test_the_sample_archive_is_usable_throughout(sample_archive: Path, runtime: Runtime) -> None:
    catalogue = take(runtime, sample_archive, settings=IngestSettings(size=64))
    table = pl.read_parquet(catalogue.table)
    assert (catalogue.count, catalogue.rejected, catalogue.name) == (700, 0, "utkface-sample")
    assert table["path"][0] == "utkface-sample.tar/UTKFace/100_1_0_20170112215032192.jpg.chip.jpg"
    assert (table["width"] == 200).all()
