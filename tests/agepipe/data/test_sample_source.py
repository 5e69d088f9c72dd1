import re
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agepipe.core.errors import SourceError
from agepipe.data.sample import source
from agepipe.data.sample.portrait import portrait
from agepipe.model.ages import AgeRanges

NAME = re.compile(r"(\d{1,3})_([01])_(?:([0-4])_)?(\d{17})\.jpg\.chip\.jpg")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    source.draw(folder, 300, 7)
    return folder


def test_the_same_seed_draws_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        source.draw(tmp_path / str(workers), 56, 7, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_another_seed_draws_other_faces(drawn: Path, tmp_path: Path) -> None:
    source.draw(tmp_path, 28, 8, workers=1)
    assert not set(contents(tmp_path).values()) & set(contents(drawn).values())


def test_an_interrupted_drawing_goes_on_and_keeps_what_is_there(tmp_path: Path) -> None:
    source.draw(tmp_path, 28, 3, workers=1)
    whole, first = contents(tmp_path), min(tmp_path.iterdir())
    kept = max(tmp_path.iterdir())
    written = kept.stat().st_mtime_ns
    first.unlink()
    told: list[tuple[int, int]] = []
    source.draw(tmp_path, 28, 3, lambda done, total, note="": told.append((done, total)), workers=1)
    assert contents(tmp_path) == whole
    assert kept.stat().st_mtime_ns == written
    assert told == [(27, 28), (28, 28)]


def test_the_files_are_as_utkface_has_them(drawn: Path) -> None:
    names = [NAME.fullmatch(path.name) for path in drawn.iterdir()]
    assert len(names) == 300
    assert all(names)
    pictures = [cv2.imread(str(path)) for path in drawn.iterdir()]
    assert {picture.shape for picture in pictures} == {(200, 200, 3)}


def test_every_range_has_its_share_and_ages_go_from_1_to_116() -> None:
    chips = source.plan(2400, 7)
    ages = np.array([chip.age for chip in chips])
    shares = np.bincount(AgeRanges.of("utkface").classes(ages), minlength=14) / len(ages)
    assert shares.min() > 0.035
    assert shares.argmax() == 6
    assert (ages.min(), ages.max()) == (1, 116)


def test_there_are_copies_with_other_labels_and_faces_without_race(drawn: Path) -> None:
    chips = source.plan(2400, 7)
    exact = Counter(chip.person.face for chip in chips if chip.quality is None)
    assert sum(count > 1 for count in exact.values()) == 24
    assert sum(chip.age != chip.person.age for chip in chips) == 12
    assert sum(chip.quality is not None for chip in chips) == 24
    assert sum(chip.person.race is None for chip in chips) >= 3
    assert len({chip.name for chip in chips}) == 2400
    assert sorted(Counter(contents(drawn).values()).values())[-3:] == [2, 2, 2]


def test_a_reencoded_copy_looks_the_same_but_has_other_bytes() -> None:
    chip = source.plan(60, 1)[0]
    first, second = source.encoded(chip, 1), source.encoded(replace(chip, quality=60), 1)
    assert first != second
    grey = [_grey(data).ravel() for data in (first, second)]
    assert np.corrcoef(grey)[0, 1] > 0.99


def test_too_few_faces_are_refused() -> None:
    with pytest.raises(SourceError, match="27 faces are too few; draw at least 28"):
        source.plan(27, 1)


def test_yunet_finds_the_faces_on_the_chip_and_in_a_scene(shared: Path) -> None:
    model = str(shared / "yunet" / "face_detection_yunet_2026may.onnx")
    chips = [portrait(chip.age, chip.female, chip.person.race, (5, k)) for k, chip in enumerate(source.plan(120, 5))]
    scene = np.full((480, 640, 3), 120, np.uint8)
    found = {"chip": 0, "scene": 0}
    on_chip = cv2.FaceDetectorYN.create(model, "", (200, 200), 0.7)
    in_scene = cv2.FaceDetectorYN.create(model, "", (640, 480), 0.7)
    landmarks = []
    for chip in chips:
        picture = np.ascontiguousarray(chip[..., ::-1])
        faces = on_chip.detect(picture)[1]
        scene[140:340, 220:420] = picture
        found["chip"] += faces is not None
        found["scene"] += in_scene.detect(scene)[1] is not None
        if faces is not None:
            landmarks.append(faces[0][4:14])
    assert min(found.values()) >= 0.95 * len(chips)
    typical = (58.6, 57.2, 136.8, 58.0, 95.4, 101.1, 62.7, 135.3, 129.7, 136.0)
    assert np.abs(np.median(landmarks, axis=0) - typical).max() < 9
    assert 2 < np.std(landmarks, axis=0).mean() < 8


def test_age_can_be_read_from_pixels_but_not_exactly(drawn: Path) -> None:
    paths = sorted(drawn.iterdir(), key=lambda path: path.name.split("_")[-1])
    ages = np.array([int(path.name.split("_")[0]) for path in paths], np.float64)
    thumbs = np.stack([_grey(path.read_bytes()).ravel() for path in paths]) / 255
    centred = thumbs - thumbs[:200].mean(axis=0)
    weights = centred[:200].T @ np.linalg.solve(
        centred[:200] @ centred[:200].T + 3 * np.eye(200), ages[:200] - ages[:200].mean()
    )
    error = np.abs(centred[200:] @ weights + ages[:200].mean() - ages[200:]).mean()
    constant = np.abs(ages[200:] - np.median(ages[:200])).mean()
    assert 1 < error < 0.75 * constant


def _grey(data: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    return np.asarray(cv2.resize(picture, (24, 24), interpolation=cv2.INTER_AREA), np.uint8)
