"""What is drawn on a frame: a label that leaves the face free where it can, and the keys when they are asked for."""

import numpy as np
import pytest
from bundles import RANGES
from numpy.typing import NDArray

from agepipe.model.decoding import Rule
from agepipe.model.imaging import Image
from agepipe.serving.detect.face import Face
from agepipe.serving.overlay import draw
from agepipe.serving.tracker import Track

GREY = 90


def blank(height: int = 480, width: int = 640) -> Image:
    return np.full((height, width, 3), GREY, np.uint8)


def unsure(top: int, height: int = 200, left: int = 200) -> Track:
    """A face for which the 90 % set is written as well: three lines."""
    box = np.array([left, top, 200, height], np.float32)
    face = Face(box, np.zeros((5, 2), np.float32), 1.0)
    return Track(1, face, np.array([0.0, 0.5, 0.4, 0.1]), 30.0, 0.0, Rule(threshold=0.85))


def changed(drawn: Image, rows: slice) -> float:
    """Share of the pixels between the box's sides that are not as they were."""
    return float((drawn[rows, 210:390] != GREY).any(axis=-1).mean())


@pytest.mark.parametrize(
    ("top", "rows"),
    [
        (200, slice(150, 198)),  # above
        (10, slice(214, 262)),  # no room above: below
    ],
)
def test_the_label_leaves_the_face_free(top: int, rows: slice) -> None:
    drawn = draw(blank(), [unsure(top)], RANGES, "model")
    assert changed(drawn, rows) > 0.6
    assert changed(drawn, slice(top + 5, top + 195)) == 0


def test_a_face_as_large_as_the_picture_has_its_label_inside_and_above_the_line() -> None:
    drawn = draw(blank(), [unsure(5, 465)], RANGES, "model")
    assert changed(drawn, slice(10, 55)) > 0.6
    assert changed(drawn, slice(80, 440)) == 0


def text_pixels(drawn: Image, height: slice) -> NDArray[np.bool_]:
    return np.asarray((drawn[height, :120] > 200).all(axis=-1))


def test_the_keys_are_shown_when_they_are_asked_for() -> None:
    middle = slice(150, 240)
    assert not text_pixels(draw(blank(), [], RANGES, "model"), middle).any()
    assert text_pixels(draw(blank(), [], RANGES, "model", helped=True), middle).sum() > 300


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (20, 20)])
def test_pictures_of_any_size_are_drawn_on(shape: tuple[int, int]) -> None:
    image = blank(*shape)
    assert draw(image, [unsure(0)], RANGES, "model", helped=True).shape == (*shape, 3)
