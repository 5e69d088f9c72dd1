"""YuNet finds faces in pictures of any size, and says where; its file is known by its digest."""

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from chips import detector_file, real_chips

from agepipe.config.runtime import Runtime
from agepipe.core.errors import DetectorError, ModelError
from agepipe.model.imaging import Image
from agepipe.serving.align import LANDMARKS
from agepipe.serving.detect import yunet
from agepipe.serving.detect.yunet import YuNet
from benchmarks.scenes import background, pasted


@pytest.fixture(autouse=True)
def no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own environment says."""
    monkeypatch.delenv(yunet.VARIABLE, raising=False)


@pytest.fixture(scope="module")
def detector(shared: Path) -> YuNet:
    return YuNet(detector_file(shared))


@pytest.fixture(scope="module")
def chips(sample_archive: Path) -> list[Image]:
    return real_chips(sample_archive, step=70)[0]


def test_landmarks_lie_where_the_face_was_put(detector: YuNet, chips: list[Image]) -> None:
    scene = pasted(background(np.random.default_rng(0)), chips[3], (400, 200), 200)
    (face,) = detector.find(scene, 640)
    assert face.landmarks - [400 - 99.5, 200 - 99.5] == pytest.approx(LANDMARKS, abs=20)
    assert face.score > 0.8
    left, top, width, height = face.box
    assert left < face.landmarks[:, 0].min() < face.landmarks[:, 0].max() < left + width
    assert top < face.landmarks[:, 1].min() < face.landmarks[:, 1].max() < top + height


def test_a_search_at_half_size_answers_in_pixels_of_the_picture(detector: YuNet, chips: list[Image]) -> None:
    scene = pasted(background(np.random.default_rng(0)), chips[3], (400, 200), 200)
    (whole,), (half,) = detector.find(scene, 640), detector.find(scene, 320)
    assert half.landmarks == pytest.approx(whole.landmarks, abs=12)
    assert half.box == pytest.approx(whole.box, abs=20)


def test_the_largest_face_comes_first(detector: YuNet, chips: list[Image]) -> None:
    scene = background(np.random.default_rng(0))
    for chip, left, side in ((chips[1], 120, 110), (chips[5], 420, 220)):
        scene = pasted(scene, chip, (left, 240), side)
    found = detector.find(scene, 640)
    assert [round(face.landmarks[2, 0], -2) for face in found] == [400, 100]


def test_a_photograph_full_of_one_face_and_a_face_far_away_are_both_found(detector: YuNet, chips: list[Image]) -> None:
    near = cv2.resize(chips[3], (3000, 3000), interpolation=cv2.INTER_CUBIC)
    assert len(detector.search(near)) == 1
    far = pasted(background(np.random.default_rng(0), 3000, 2000), chips[3], (1500, 1000), 90)
    assert len(detector.search(far)) == 1


def test_a_chip_of_a_few_pixels_is_found(detector: YuNet, chips: list[Image]) -> None:
    small = cv2.resize(chips[3], (32, 32), interpolation=cv2.INTER_AREA)
    (face,) = detector.search(small)
    assert face.landmarks == pytest.approx(LANDMARKS * 32 / 200, abs=4)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 3000), (15, 15), (16, 16), (32, 640), (480, 640), (37, 1111), (50, 1000)]
)
def test_pictures_without_faces_have_none(detector: YuNet, shape: tuple[int, int]) -> None:
    assert detector.search(np.full((*shape, 3), 120, np.uint8)) == []


def test_the_workspaces_file_is_used_without_a_network(runtime: Runtime, shared: Path) -> None:
    path = runtime.workspace / "detectors" / yunet.FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(detector_file(shared).read_bytes())
    assert yunet.model_file(runtime, url="http://127.0.0.1:9/none") == path


def test_a_named_file_goes_first(runtime: Runtime, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    assert yunet.model_file(runtime) == detector_file(shared)
    monkeypatch.setenv(yunet.VARIABLE, str(runtime.workspace / "none.onnx"))
    with pytest.raises(ModelError, match=r"none\.onnx: the face detector cannot be read .*AGEPIPE_DETECTOR"):
        yunet.model_file(runtime)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "public"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/yunet.onnx"
        running.shutdown()
        thread.join()


def test_it_is_fetched_once(server: str, runtime: Runtime, shared: Path, tmp_path: Path) -> None:
    public = tmp_path / "public" / "yunet.onnx"
    public.write_bytes(detector_file(shared).read_bytes())
    path = yunet.model_file(runtime, server)
    public.unlink()
    assert yunet.model_file(runtime, server) == path
    assert [item.name for item in path.parent.iterdir()] == [yunet.FILE]


def test_another_file_is_refused_and_not_kept(server: str, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "public" / "yunet.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError, match=r"not the face detector .*SHA-256"):
        yunet.model_file(runtime, server)
    assert not runtime.workspace.exists()


def test_without_file_and_network_it_says_what_to_do(runtime: Runtime) -> None:
    with pytest.raises(DetectorError, match=re.escape(yunet.URL)) as caught:
        yunet.model_file(runtime, "http://127.0.0.1:9/none")
    assert str(runtime.workspace / "detectors" / yunet.FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot load it as a face detector"):
        YuNet(tmp_path / "x.onnx")
