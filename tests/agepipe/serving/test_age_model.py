"""The Python interface: a model by name or folder, and the ages of the faces in paths and arrays."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import RANGES, SIZE, make_bundle, pictures
from chips import detector_file, real_chips
from versions import put

import agepipe
from agepipe.config.runtime import Runtime
from agepipe.model.imaging import Image, Limits, fit, photograph
from agepipe.model.predictor import Predictor
from agepipe.serving import pictures as photographs
from agepipe.serving.detect import yunet
from benchmarks.scenes import background, pasted

AGES = np.array([5, 30, 55])


def written(path: Path, image: Image) -> Path:
    cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.fixture
def model(tmp_path: Path) -> agepipe.AgeModel:
    make_bundle(tmp_path / "bundle", thresholds={90: 0.9})
    return agepipe.load(tmp_path / "bundle", workspace=tmp_path / "workspace")


@pytest.fixture
def detector(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))


def test_aligned_chips_are_answered_as_the_predictor_does(model: agepipe.AgeModel, tmp_path: Path) -> None:
    chips = pictures(AGES, 40, seed=3, noise=0.01)
    paths = [written(tmp_path / f"{age}.png", chip) for age, chip in zip(AGES, chips, strict=True)]
    answers = model.predict(paths, aligned=True)
    predictor = Predictor.load(tmp_path / "bundle")
    expected = predictor.predict(np.stack([fit(chip, SIZE) for chip in chips]))
    assert model.ranges == RANGES
    assert [[face.range for face in faces] for faces in answers] == [["1-10"], ["21-40"], ["over40"]]
    for row, (face,) in enumerate(answers):
        assert face.probability == pytest.approx(expected.probabilities[row].max(), abs=1e-6)
        assert face.age == pytest.approx(float(expected.years[row]), abs=1e-4)
        assert (face.low, face.high) == predictor.card.spans(expected.probabilities)[row]
        assert face.box is None
    assert answers[2][0].high is None
    assert model.predict(paths[0], aligned=True) == model.predict(str(paths[0]), aligned=True) == answers[0]
    assert model.predict(chips[0], aligned=True) == answers[0]
    assert model.predict([], aligned=True) == []


def test_faces_of_a_photograph_come_largest_first_with_their_boxes(
    model: agepipe.AgeModel, detector: None, sample_archive: Path, tmp_path: Path
) -> None:
    chips = real_chips(sample_archive, step=70)[0]
    scene = background(np.random.default_rng(0))
    for chip, left, side in ((chips[1], 120, 110), (chips[5], 420, 220)):
        scene = pasted(scene, chip, (left, 240), side)
    large, small = faces = model.predict(scene)
    assert model.predict(written(tmp_path / "scene.png", scene)) == faces
    assert large.box is not None and small.box is not None
    assert large.box[2] * large.box[3] > small.box[2] * small.box[3]
    for box, centre in ((large.box, 420), (small.box, 120)):
        assert box[0] < centre < box[0] + box[2]
        assert box[1] < 240 < box[1] + box[3]
    assert all(face.range in RANGES.names and 0 < face.probability <= 1 for face in faces)
    assert model.predict(background(np.random.default_rng(1))) == []


def test_boxes_are_in_pixels_of_the_original_where_it_was_made_smaller(
    model: agepipe.AgeModel, detector: None, sample_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "photograph", partial(photograph, limits=Limits(max_pixels=640 * 480)))
    chip = real_chips(sample_archive, step=70)[0][5]
    scene = pasted(background(np.random.default_rng(0), 1280, 960), chip, (900, 480), 400)
    ((_, _, _, _, _, box),) = model.predict(written(tmp_path / "large.jpg", scene))
    assert box is not None
    assert box[0] < 900 < box[0] + box[2]
    assert 300 < box[2] < 500


def test_a_model_is_loaded_by_alias_version_and_run(tracked: Runtime, tmp_path: Path) -> None:
    done = put(tmp_path, tracked, 60.0)
    place = {"workspace": tracked.workspace, "tracking": tracked.tracking}
    chip = pictures(AGES, SIZE, seed=3, noise=0.01)[1]
    assert done.run is not None
    for reference in ("champion", "1", "models:/agepipe@champion", done.run):
        assert agepipe.load(reference, **place).predict(chip, aligned=True)[0].range == "21-40"
    with pytest.raises(agepipe.ModelError, match="'2'"):
        agepipe.load("2", **place)


def test_the_haar_cascade_stands_in_with_a_warning(
    model: agepipe.AgeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.delenv(yunet.VARIABLE, raising=False)
    monkeypatch.setattr(yunet.urllib.request, "urlopen", refused)
    with pytest.warns(UserWarning, match="Haar") as caught:
        assert model.predict(np.zeros((64, 64, 3), np.uint8)) == []
    assert len(caught) == 1


def test_a_file_that_is_no_photograph_is_refused_by_name(model: agepipe.AgeModel, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(agepipe.ImageError, match=r"note\.jpg") as caught:
        model.predict([tmp_path / "note.jpg"])
    assert caught.value.reason == "not an image"
    with pytest.raises(agepipe.ImageError, match=str(tmp_path)):
        model.predict(tmp_path)
    with pytest.raises(agepipe.SourceError, match="nowhere"):
        model.predict(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((40, 40, 3), np.float32), np.zeros((40, 40), np.uint8), np.zeros((40, 40, 4), np.uint8),
        np.zeros((2, 40, 40, 3), np.uint8), np.zeros((0, 40, 3), np.uint8),
    ],
    ids=str,
)  # fmt: skip
def test_an_array_of_another_kind_is_refused(model: agepipe.AgeModel, array: np.ndarray) -> None:
    with pytest.raises(agepipe.DataError, match=str(array.dtype)):
        model.predict(array)


def test_an_argument_that_cannot_be_used_is_refused_by_name() -> None:
    with pytest.raises(agepipe.ConfigError, match="workspace"):
        agepipe.load("champion", workspace="")
