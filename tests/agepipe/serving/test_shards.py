"""Shards of photographs, read one after the other, are what the paths hold, whatever their size."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundles import make_bundle
from photographs import chips, jpeg, tar_of, zip_of

from agepipe.config.runtime import Runtime
from agepipe.core.errors import DetectorError, ModelError, SourceError
from agepipe.model.predictor import CUDA, Predictor
from agepipe.serving import pictures
from agepipe.serving.pictures import Picture
from agepipe.serving.predict import predict
from agepipe.serving.shards import combined, part, read, shards

LONG = "deep/" * 30


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders, archives, files and what is none of these, by paths of all kinds.

    The damaged archive has an absolute path, because the reason for its reject names it so.
    """
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    chips(folder, 5)
    chips(folder / "inner", 3, first=50)
    (folder / "note.txt").write_text("no picture")
    (folder / "link.jpg").symlink_to(tmp_path / "single.jpg")
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(jpeg(1))
    tar_of(folder / os.fsdecode(b"\xfe.tar"), {"1.jpg": jpeg(1)})
    os.mkfifo(folder / "pipe.jpg")
    tar_of(folder / "inner.tar", {f"{LONG}{at}.jpg": jpeg(at) for at in range(4)})
    whole = tar_of(tmp_path / "whole.tar", {f"{at}.jpg": jpeg(at) for at in range(6)})
    (folder / "cut.tar").write_bytes(whole.read_bytes()[:-12_000])
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:-12_000])
    (folder / "none.tar").write_bytes(b"no archive")
    tar_of(tmp_path / "packed.tar.gz", {f"{at}.jpg": jpeg(at) for at in range(5)}, "w:gz")
    zip_of(tmp_path / "z.zip", {"a/.hidden": b"x", **{f"a/{at}.jpg": jpeg(at) for at in range(5)}})
    for name in ("single.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(jpeg(9))
    return [
        Path("folder"), whole, Path("single.jpg"), tmp_path / "other.jpg", Path("z.zip"), Path("packed.tar.gz"),
        tmp_path / "cut.tar", Path("single.jpg"),
    ]  # fmt: skip


def plain(found: Iterator[Picture]) -> list[tuple[object, ...]]:
    return [(one.path, None if one.image is None else one.image.tobytes(), *one[2:]) for one in found]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_shards_of_any_size_are_read_as_the_paths_are(places: list[Path], size: int) -> None:
    expected = plain(pictures.read(places))
    divided = list(shards(places, size))
    assert plain(picture for shard in divided for picture in read(shard)) == expected
    assert len({shard.digest for shard in divided}) == len(divided) - (size == 1), "one file is given twice"
    assert all(1 <= shard.count <= size or shard.last for shard in divided)
    reasons = [row[2] for row in expected]
    assert {reason: reasons.count(reason) for reason in set(reasons) - {""}} == {
        "not an image": 2, "link": 1, "unreadable": 5, "unparsable name": 2,
    }  # fmt: skip


def test_a_changed_file_changes_its_shard_alone(tmp_path: Path) -> None:
    files = chips(tmp_path / "faces", 6)
    before = [shard.digest for shard in shards([tmp_path / "faces"], 2)]
    files[2].write_bytes(jpeg(77) + b"more")
    after = [shard.digest for shard in shards([tmp_path / "faces"], 2)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_a_file_that_is_not_the_listed_one_is_refused_and_nothing_is_written(tmp_path: Path, runtime: Runtime) -> None:
    files = chips(tmp_path / "faces", 2)
    model = make_bundle(tmp_path / "bundle")
    (shard,) = shards([tmp_path / "faces"], 4)
    (folder := tmp_path / "part").mkdir()
    files[1].unlink()
    with pytest.raises(SourceError, match=f"path: {files[1]} on {socket.gethostname()}"):
        part(shard, model, "", folder, runtime)
    assert not list(folder.iterdir())


def test_the_target_of_a_named_link_and_the_right_to_read_are_part_of_a_shard(tmp_path: Path) -> None:
    (target := tmp_path / "target.jpg").write_bytes(jpeg(1))
    (link := tmp_path / "link.jpg").symlink_to(target)
    before = [shard.digest for shard in shards([link], 4)]
    target.write_bytes(jpeg(2) + b"more")
    changed = [shard.digest for shard in shards([link], 4)]
    assert changed != before
    target.chmod(0o600)
    assert [shard.digest for shard in shards([link], 4)] != changed


def test_the_present_folder_has_the_paths_of_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chips(tmp_path / "faces", 2)
    tar_of(tmp_path / "inner.tar", {"1.jpg": jpeg(1)})
    expected = plain(pictures.read([Path()]))
    assert plain(picture for shard in shards([Path()], 2) for picture in read(shard)) == expected
    assert any(row[0].startswith("./inner.tar/") for row in expected)


def test_parts_together_are_the_predictions_of_all(places: list[Path], tmp_path: Path, runtime: Runtime) -> None:
    model = make_bundle(tmp_path / "bundle")
    expected = predict(Predictor.load(model.folder), places, None, all_ranges=True)
    parts = []
    for number, shard in enumerate(shards(places, 4)):
        (folder := tmp_path / f"part-{number}").mkdir()
        parts.append(part(shard, model, "", folder, runtime))
    faces, rejects = combined(parts, all_ranges=True)
    assert faces.collect().equals(expected.faces)
    assert rejects.equals(expected.rejects)
    assert sum(one.faces for one in parts) == len(expected.faces) > 20
    assert combined(parts)[0].collect().columns == expected.faces.columns[:7]


def test_a_machine_with_another_detector_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    model = make_bundle(tmp_path / "bundle")
    chips(tmp_path / "faces", 1)
    (shard,) = shards([tmp_path / "faces"], 10)
    with pytest.raises(DetectorError, match="another"):
        part(shard, model, "another", tmp_path, runtime)


def test_cuda_that_is_not_there_is_refused_and_auto_takes_the_processor(tmp_path: Path) -> None:
    model = make_bundle(tmp_path / "bundle")
    size = Predictor.load(model.folder, device="auto").card.size
    assert len(Predictor.load(model.folder, device="auto").predict(np.zeros((1, size, size, 3), np.uint8)).years) == 1
    if CUDA not in onnxruntime.get_available_providers():
        with pytest.raises(ModelError, match="'cuda'"):
            Predictor.load(model.folder, device="cuda")
