"""Photographs in, a table out: every face has a row, every file that has none is listed with its reason."""

import csv
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from bundles import SIZE, make_bundle, pictures
from chips import detector_file, real_chips
from photographs import jpeg, png_bomb, tar_of, zip_of

from agepipe.core.errors import SourceError
from agepipe.model.ages import AgeRange, AgeRanges
from agepipe.model.decoding import decide
from agepipe.model.imaging import Image, Limits, fit, photograph
from agepipe.model.predictor import BATCH, Predictor
from agepipe.serving import pictures as photographs
from agepipe.serving.align import align
from agepipe.serving.detect.yunet import YuNet
from agepipe.serving.predict import predict, rejects_path, write
from benchmarks.scenes import background, pasted

AGES = np.array([5, 15, 30, 55])
WORDS = ["1 to 10", "11 to 20", "21 to 40", "over 40"]


def png(image: Image) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder)
    return Predictor.load(folder)


def test_chips_of_folders_archives_and_files_are_answered_as_the_predictor_does(
    predictor: Predictor, tmp_path: Path
) -> None:
    faces = pictures(AGES, SIZE, seed=1, noise=0.01)
    files = [png(face) for face in faces]
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "a.png").write_bytes(files[0])
    tar_of(tmp_path / "b.tar", {"deep/b.png": files[1]})
    zip_of(tmp_path / "c.zip", {"c.png": files[2]})
    (tmp_path / "d.png").write_bytes(files[3])
    places = [tmp_path / name for name in ("folder", "b.tar", "c.zip", "d.png")]
    seen: list[tuple[int, int]] = []
    found = predict(
        predictor, places, None, all_ranges=True, progress=lambda done, total, note="": seen.append((done, total))
    )
    inside = ["folder/inner/a.png", "b.tar/deep/b.png", "c.zip/c.png", "d.png"]
    assert found.faces["path"].to_list() == [f"{tmp_path}/{name}" for name in inside]
    assert found.faces["range"].to_list() == WORDS
    assert found.faces["face"].to_list() == [1] * 4
    assert found.faces.columns == ["path", "face", "range", "probability", "age", "low", "high", *WORDS]
    assert found.faces.select("low", "high").null_count().row(0) == (4, 4), "nothing was calibrated"
    expected = predictor.predict(faces)
    assert found.faces.select(WORDS).to_numpy() == pytest.approx(expected.probabilities, abs=1e-6)
    assert found.faces["age"].to_numpy() == pytest.approx(expected.years, abs=1e-4)
    assert found.faces["probability"].to_numpy() == pytest.approx(expected.probabilities.max(axis=1), abs=1e-6)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.rejects.is_empty()


def test_more_than_a_batch_keeps_its_order(predictor: Predictor, tmp_path: Path) -> None:
    ages = np.random.default_rng(0).integers(1, 60, BATCH + 7)
    faces = pictures(ages, SIZE, seed=2, noise=0.02)
    tar_of(tmp_path / "many.tar", {f"{at}.png": png(face) for at, face in enumerate(faces)})
    found = predict(predictor, [tmp_path / "many.tar"], None).faces
    assert found.columns == ["path", "face", "range", "probability", "age", "low", "high"]
    assert found["age"].to_numpy() == pytest.approx(predictor.predict(faces).years, abs=1e-4)


def test_the_range_follows_the_card_and_the_set_has_its_ends(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", sharpness=9.0, decoding="median", thresholds={90: 0.8})
    predictor = Predictor.load(tmp_path / "bundle")
    faces = pictures(np.arange(1, 60, 4), SIZE, seed=1, noise=0.01)
    tar_of(tmp_path / "many.tar", {f"{at:02}.png": png(face) for at, face in enumerate(faces)})
    found = predict(predictor, [tmp_path / "many.tar"], None, all_ranges=True).faces
    shares, words = found.select(WORDS).to_numpy(), predictor.card.ranges.words
    assert found["range"].to_list() == [words[label] for label in decide(shares, "median")]
    assert found["range"].to_list() != [words[label] for label in decide(shares)], "the two differ on some"
    assert found.select("low", "high").rows() == predictor.card.spans(shares)
    assert None in found["high"].to_list()
    assert None not in found["low"].to_list()
    for row in found.iter_rows(named=True):
        answered = predictor.card.ranges.ranges[words.index(row["range"])]
        assert row["low"] <= answered.low
        assert row["high"] is None or (answered.high is not None and answered.high <= row["high"])


def test_bad_files_are_listed_and_stop_nothing(predictor: Predictor, tmp_path: Path) -> None:
    good, folder = png(pictures(AGES, SIZE, seed=1, noise=0.01)[2]), tmp_path / "mixed"
    folder.mkdir()
    bad = {"bomb.png": png_bomb(), "empty.jpg": b"", "half.jpg": jpeg(3)[:300], "text.jpg": b"hello, no picture"}
    for name, data in {**bad, "good.png": good}.items():
        (folder / name).write_bytes(data)
    cut = tar_of(tmp_path / "cut.tar", {"first.png": good, "second.png": good})
    cut.write_bytes(cut.read_bytes()[: 512 + len(good) + 200])
    found = predict(predictor, [cut, folder], None)
    assert [Path(path).name for path in found.faces["path"]] == ["first.png", "good.png"]
    reasons = {Path(row["path"]).name: row["reason"] for row in found.rejects.to_dicts()}
    assert reasons == {
        "cut.tar": "unreadable", "bomb.png": "too large", "empty.jpg": "not an image",
        "half.jpg": "truncated", "text.jpg": "not an image",
    }  # fmt: skip
    assert all(found.rejects["detail"])


def test_faces_are_found_aligned_and_numbered_by_size(
    predictor: Predictor, shared: Path, sample_archive: Path, tmp_path: Path
) -> None:
    chips, detector = real_chips(sample_archive, step=70)[0], YuNet(detector_file(shared))
    scene = background(np.random.default_rng(0))
    for chip, left, side in ((chips[1], 120, 110), (chips[5], 420, 220)):
        scene = pasted(scene, chip, (left, 240), side)
    (tmp_path / "two.png").write_bytes(png(scene))
    (tmp_path / "none.png").write_bytes(png(background(np.random.default_rng(1))))
    found = predict(predictor, [tmp_path / "two.png", tmp_path / "none.png"], detector)
    assert found.faces["face"].to_list() == [1, 2]
    cut = np.stack([fit(align(scene, face.landmarks), SIZE) for face in detector.search(scene)])
    assert found.faces["age"].to_numpy() == pytest.approx(predictor.predict(cut).years, abs=1e-4)
    assert found.rejects["reason"].to_list() == ["no face"]
    assert "640×480" in found.rejects["detail"][0]


def test_faces_that_are_too_small_have_no_row_but_are_listed(
    predictor: Predictor, shared: Path, sample_archive: Path, tmp_path: Path
) -> None:
    chips, detector = real_chips(sample_archive, step=70)[0], YuNet(detector_file(shared))
    tiny = pasted(background(np.random.default_rng(0)), chips[3], (120, 240), 22)
    (tmp_path / "both.png").write_bytes(png(pasted(tiny, chips[5], (420, 220), 220)))
    (tmp_path / "tiny.png").write_bytes(png(tiny))
    found = predict(predictor, [tmp_path / "both.png", tmp_path / "tiny.png"], detector)
    assert [Path(path).name for path in found.faces["path"]] == ["both.png"]
    assert [Path(path).name for path in found.rejects["path"]] == ["both.png", "tiny.png"]
    assert set(found.rejects["reason"]) == {"face too small"}
    assert ["1 of 2" in found.rejects["detail"][0], "1 of 1" in found.rejects["detail"][1]] == [True, True]


def test_faces_too_small_in_a_photograph_made_smaller_are_described_in_its_own_pixels(
    predictor: Predictor, shared: Path, sample_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "photograph", partial(photograph, limits=Limits(max_pixels=640 * 480)))
    empty = background(np.random.default_rng(0), 1280, 960)
    chip = real_chips(sample_archive, step=70)[0][3]
    cv2.imwrite(str(tmp_path / "1.jpg"), empty[..., ::-1])
    cv2.imwrite(str(tmp_path / "2.jpg"), pasted(empty, chip, (240, 480), 44)[..., ::-1])
    found = predict(predictor, [tmp_path / "1.jpg", tmp_path / "2.jpg"], YuNet(detector_file(shared)))
    assert found.rejects["reason"].to_list() == ["no face", "face too small"]
    assert all("1280×960" in detail for detail in found.rejects["detail"])
    assert "48 px" in found.rejects["detail"][1]


def test_a_path_that_is_not_there_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere does not exist"):
        predict(predictor, [tmp_path / "nowhere"], None)
    with pytest.raises(SourceError, match="none is given"):
        predict(predictor, [], None)


TABLE = pl.DataFrame(
    {
        "path": ["Zoë.jpg"], "face": [1], "range": ["over 80"], "probability": [0.5], "age": [82.25], "low": [71],
        "high": pl.Series([None], dtype=pl.Int32),
    }
)  # fmt: skip


def test_a_table_is_written_as_its_name_says(tmp_path: Path) -> None:
    text = write(TABLE, tmp_path / "a.csv").read_text(encoding="utf-8-sig")
    (row,) = csv.DictReader(text.splitlines())
    assert row == {
        "path": "Zoë.jpg", "face": "1", "range": "over 80", "probability": "0.500000", "age": "82.250000", "low": "71",
        "high": "",
    }  # fmt: skip
    assert json.loads(write(TABLE, tmp_path / "a.jsonl").read_text(encoding="utf-8")) == TABLE.to_dicts()[0]
    assert pl.read_parquet(write(TABLE, tmp_path / "a.parquet")).equals(TABLE)
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.jsonl", "a.parquet"}
    assert rejects_path(tmp_path / "a.csv").name == "a.rejects.csv"


def test_no_label_is_a_date_to_a_spreadsheet() -> None:
    words = AgeRanges.of("utkface").words
    assert words[:4] == ("1 to 2", "3 to 5", "6 to 10", "11 to 14")
    assert words[-1] == "over 80"
    assert not [word for word in words if "-" in word or "/" in word]
    assert AgeRange(low=7, high=7).words == "7"
