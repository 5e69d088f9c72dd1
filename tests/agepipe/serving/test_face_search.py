"""A photograph is searched for every face: large and small ones together, and whichever side of it is up."""

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from chips import detector_file, real_chips

from agepipe.model.imaging import Image, fit
from agepipe.serving.align import align
from agepipe.serving.detect import search
from agepipe.serving.detect.face import MIN_FACE, Face
from agepipe.serving.detect.yunet import YuNet
from benchmarks.scenes import background, pasted


@pytest.fixture(scope="module")
def detector(shared: Path) -> YuNet:
    return YuNet(detector_file(shared))


@pytest.fixture(scope="module")
def chips(sample_archive: Path) -> list[Image]:
    return real_chips(sample_archive, step=50)[0]


def group(chips: Sequence[Image], size: tuple[int, int], large: int, small: int, count: int = 12) -> Image:
    """One large face at the left, if any, and small ones in rows at the right."""
    width, height = size
    scene = background(np.random.default_rng(0), width, height)
    if large:
        scene = pasted(scene, chips[0], (0.22 * width, 0.5 * height), large)
    for at in range(count):
        scene = pasted(scene, chips[1 + at], ((0.5 + 0.12 * (at % 4)) * width, (0.2 + 0.3 * (at // 4)) * height), small)
    return scene


@pytest.mark.parametrize(
    ("size", "large", "small", "count"),
    [
        ((1600, 1200), 400, 60, 12),
        ((640, 480), 200, 36, 12),
        ((1000, 2000), 0, 60, 12),
        pytest.param((4000, 3000), 0, 60, 1, marks=pytest.mark.slow),
        pytest.param((4000, 3000), 1700, 60, 12, marks=pytest.mark.slow),
        pytest.param((6000, 4500), 1500, 60, 12, marks=pytest.mark.slow),
    ],
)
def test_a_large_face_hides_no_small_one(
    size: tuple[int, int], large: int, small: int, count: int, detector: YuNet, chips: list[Image]
) -> None:
    found = detector.search(group(chips, size, large, small, count))
    assert len(found) == count + bool(large)
    assert [face.area for face in found] == sorted((face.area for face in found), reverse=True)
    widths = [face.box[2] for face in found[bool(large) :]]
    assert 0.5 * small < min(widths) <= max(widths) < 1.1 * small


def test_a_face_where_two_parts_of_a_large_photograph_meet_is_one(detector: YuNet, chips: list[Image]) -> None:
    scene = background(np.random.default_rng(0), 3008, 400)
    for at in range(5):
        scene = pasted(scene, chips[at], (1344 + 80 * at, 200), 70)
    assert len(detector.search(scene)) == 5


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_turned_photograph_gives_the_chips_of_the_upright_one(turn: int, detector: YuNet, chips: list[Image]) -> None:
    upright = group(chips, (640, 480), 220, 90, 2)
    turned = np.ascontiguousarray(np.rot90(upright, turn))
    plain, found = detector.search(upright), detector.search(turned)
    assert len(plain) == len(found) == 3
    for one, other in zip(_chips(upright, plain), _chips(turned, found), strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


def _chips(image: Image, faces: Sequence[object]) -> list[np.ndarray]:
    """In the order of their brightness: which of two equal faces is larger differs by a pixel."""
    cut = [fit(align(image, face.landmarks), 48).astype(float) for face in faces]  # type: ignore[attr-defined]
    return sorted(cut, key=lambda chip: chip.mean())


def test_photographs_of_an_album_page_are_each_turned(detector: YuNet, chips: list[Image]) -> None:
    page = background(np.random.default_rng(0), 1600, 1200)
    places = ((400, 300), (1200, 300), (400, 900), (1200, 900))
    for turn, centre in enumerate(places):
        page = pasted(page, chips[turn + 1], centre, 240, 90 * turn)
    found = detector.search(page)
    assert len(found) == 4
    for turn, centre in enumerate(places):
        (face,) = [face for face in found if np.abs(face.landmarks[2] - centre).max() < 60]
        across = face.landmarks[1] - face.landmarks[0]
        angle = np.degrees(np.arctan2(across[1], across[0]))
        assert abs((angle - 90 * turn + 180) % 360 - 180) < 20


def test_small_faces_upside_down_beside_a_large_upright_one_are_turned(detector: YuNet, chips: list[Image]) -> None:
    scene = group(chips, (2400, 1800), 700, 0, 0)
    for at in range(4):
        scene = pasted(scene, chips[1 + at], (1300 + 250 * at, 900), 80, 180)
    _, *small = detector.search(scene)
    assert len(small) >= 3
    for face in small:
        assert face.landmarks[0, 1] > face.landmarks[3, 1], "its eyes lie below its mouth"


def test_upright_chips_are_neither_turned_nor_doubled(detector: YuNet, chips: list[Image]) -> None:
    for chip in chips:
        (face,) = [face for face in detector.search(chip) if face.large_enough]
        assert face.landmarks[:2, 1].max() < face.landmarks[3:, 1].min()


def textured(kind: str, seed: int) -> Image:
    """A picture without faces that has edges, blobs or letters everywhere."""
    random = np.random.default_rng(seed)
    image = np.full((720, 960, 3), 200, np.uint8)
    for _ in range(200):
        ink, (x, y) = random.integers(0, 256, 3).tolist(), random.integers(0, (960, 720)).tolist()
        if kind == "circles":
            cv2.circle(image, (x, y), int(random.integers(3, 80)), ink, -1 if random.random() < 0.5 else 3)
        else:
            text = "".join(chr(code) for code in random.integers(33, 126, 8))
            cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, float(random.uniform(0.4, 3)), ink, 2)
    return image


@pytest.mark.parametrize("kind", ["circles", "text"])
def test_pictures_without_faces_have_none_at_any_size_and_turn(kind: str, detector: YuNet) -> None:
    assert detector.search(textured(kind, 0)) == []


def test_a_face_of_a_few_pixels_is_found_but_not_legible(detector: YuNet, chips: list[Image]) -> None:
    scene = pasted(group(chips, (640, 480), 160, 0, 0), chips[1], (450, 200), 22)
    large, tiny = detector.search(scene)
    assert large.large_enough
    assert not tiny.large_enough
    assert tiny.box[2] < MIN_FACE


def many(count: int) -> list[Face]:
    """Boxes of many sizes, placed at random, many of them over each other."""
    random = np.random.default_rng(0)
    boxes = np.concatenate([random.uniform(0, 3000, (count, 2)), random.uniform(20, 120, (count, 2))], axis=1)
    scores = random.uniform(0.4, 1, count)
    return [
        Face(box, np.zeros((5, 2), np.float32), float(score))
        for box, score in zip(boxes.astype(np.float32), scores, strict=True)
    ]


def test_a_picture_of_very_many_faces_is_searched_in_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    """One thread answers all pages, so that nobody may keep it with one picture."""
    looks = list[int]()

    def find(image: Image) -> list[Face]:
        if max(image.shape[:2]) == 1600:
            return many(3000)
        looks.append(1)
        return []

    start = time.process_time()
    assert len(search.searched(find, np.zeros((1600, 1600, 3), np.uint8), 0.5)) == search.MAX_FACES
    assert len(looks) < 4 * search.MAX_FACES + 20
    assert str(search.MAX_FACES) in caplog.text
    assert time.process_time() - start < 10
