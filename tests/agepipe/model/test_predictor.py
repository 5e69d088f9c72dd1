from pathlib import Path

import numpy as np
import pytest
from bundles import RANGES, SIZE, make_bundle, network, pictures

from agepipe.core.errors import DataError, ModelError
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import NETWORK, read_card
from agepipe.model.bundle_files import write_card
from agepipe.model.decoding import Decoding, decide
from agepipe.model.predictor import BATCH, Predictor


def test_it_reads_ages_off_pictures_in_the_card_s_order(tmp_path: Path) -> None:
    predictor = Predictor.load(make_bundle(tmp_path / "model", sharpness=2000).folder)
    found = predictor.predict(pictures(np.array([5, 15, 30, 50]), SIZE, 0, 0.0))
    assert found.probabilities.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert found.probabilities.dtype == found.years.dtype == np.float32
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.all(np.diff(found.years) > 0)


def test_batches_change_nothing_and_tell_how_far_they_are(tmp_path: Path) -> None:
    predictor = Predictor.load(make_bundle(tmp_path / "model").folder)
    images = pictures(np.random.default_rng(0).integers(1, 60, BATCH + 7), SIZE, 0, 0.1)
    told: list[tuple[int, int]] = []
    whole = predictor.predict(images, lambda done, total, note="": told.append((done, total)))
    assert told == [(BATCH, BATCH + 7), (BATCH + 7, BATCH + 7)]
    single = [predictor.predict(images[k : k + 1]) for k in (0, BATCH - 1, BATCH, BATCH + 6)]
    for at, one in zip((0, BATCH - 1, BATCH, BATCH + 6), single, strict=True):
        assert np.allclose(whole.probabilities[at], one.probabilities[0], atol=1e-6)
        assert np.isclose(whole.years[at], one.years[0], atol=1e-4)


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
@pytest.mark.parametrize("sharpness", [0.0, 3.0, 60.0])
def test_the_age_lies_in_the_answered_range(decoding: Decoding, sharpness: float, tmp_path: Path) -> None:
    predictor = Predictor.load(make_bundle(tmp_path / "model", sharpness=sharpness, decoding=decoding).folder)
    found = predictor.predict(pictures(np.arange(1, 61), SIZE, 0, 0.1))
    for label, years in zip(decide(found.probabilities, decoding), found.years, strict=True):
        answered = RANGES.ranges[label]
        assert answered.low <= round(float(years)) <= (answered.high or np.inf)


def test_no_pictures_give_no_answers(tmp_path: Path) -> None:
    found = Predictor.load(make_bundle(tmp_path / "model").folder).predict(np.empty((0, SIZE, SIZE, 3), np.uint8))
    assert found.probabilities.shape == (0, 4)
    assert found.years.shape == (0,)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, SIZE, SIZE, 3), np.float32),
        np.zeros((2, SIZE + 1, SIZE, 3), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((2, 3, SIZE, SIZE), np.uint8),
    ],
)
def test_pictures_of_another_shape_or_type_are_refused(tmp_path: Path, images: np.ndarray) -> None:
    with pytest.raises(DataError, match="images:"):
        Predictor.load(make_bundle(tmp_path / "model").folder).predict(images)


@pytest.mark.parametrize("content", [b"", b"not a network", None])
def test_a_damaged_or_missing_network_is_named(tmp_path: Path, content: bytes | None) -> None:
    folder = make_bundle(tmp_path / "model").folder
    (folder / NETWORK).unlink() if content is None else (folder / NETWORK).write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Predictor.load(folder)


def test_a_truncated_network_is_named(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "model").folder / NETWORK
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Predictor.load(path.parent)


def test_a_card_with_other_classes_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    network(folder / NETWORK, AgeRanges.of(("1-20", "over20")), SIZE)
    with pytest.raises(ModelError, match=r"gives 2 classes, but card\.json names 4"):
        Predictor.load(folder)


def test_a_card_with_another_size_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    write_card(folder, read_card(folder).model_copy(update={"size": 20}))
    with pytest.raises(ModelError, match="not of one export"):
        Predictor.load(folder)


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    network(folder / NETWORK, RANGES, SIZE, sharpness=float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        Predictor.load(folder).predict(np.zeros((1, SIZE, SIZE, 3), np.uint8))
