"""The cascade stands in for YuNet where that has no file, cuts as UTKFace does, and the user is told."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import make_bundle
from chips import detector_file, real_chips
from videos import read, video

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.model.imaging import Image
from agepipe.serving import camera_session
from agepipe.serving.align import SIDE, align
from agepipe.serving.detect import yunet
from agepipe.serving.detect.detector import load_detector
from agepipe.serving.detect.haar import Haar
from agepipe.serving.detect.yunet import YuNet
from benchmarks.scenes import background, pasted

NOWHERE = "http://127.0.0.1:9/none"


@pytest.fixture(scope="module")
def chips(sample_archive: Path) -> list[Image]:
    return real_chips(sample_archive, step=20)[0]


def test_upright_faces_are_found_and_cut_as_utkface_cuts(chips: list[Image]) -> None:
    """The cut lies over the chip that was pasted: the medians of centre and size, for a cascade is rough."""
    cascade, cuts = Haar(), []
    for chip in chips:
        scene = pasted(background(np.random.default_rng(0)), chip, (300, 220), 200)
        for face in cascade.find(scene, 640)[:1]:
            eyes, mouth = face.landmarks[:2].mean(axis=0), face.landmarks[3:].mean(axis=0)
            cuts.append([*(eyes + mouth) / 2, mouth[1] - eyes[1]])
            assert align(scene, face.landmarks).shape == (SIDE, SIDE, 3)
    assert len(cuts) > 0.9 * len(chips)
    # on the chip the two middles are (97, 97) and 78 px apart
    assert np.median(cuts, axis=0) == pytest.approx([297, 217, 78], abs=6)


def test_a_search_at_half_size_answers_in_pixels_of_the_picture(chips: list[Image]) -> None:
    scene = pasted(background(np.random.default_rng(0)), chips[3], (400, 200), 200)
    (whole,), (half,) = Haar().find(scene, 640), Haar().find(scene, 320)
    assert half.landmarks == pytest.approx(whole.landmarks, abs=15)
    assert len(Haar().search(cv2.resize(scene, (2560, 1920)))) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (23, 23), (480, 640)])
def test_pictures_without_faces_have_none(shape: tuple[int, int]) -> None:
    assert Haar().search(np.full((*shape, 3), 120, np.uint8)) == []


def test_it_stands_in_only_where_yunet_has_no_file(
    runtime: Runtime, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(yunet.VARIABLE, raising=False)
    found, told = load_detector(runtime, NOWHERE)
    assert isinstance(found, Haar)
    assert "less exact" in told[0]
    assert yunet.URL in told[0]
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    found, told = load_detector(runtime, NOWHERE)
    assert (type(found), told) == (YuNet, [])
    monkeypatch.setenv(yunet.VARIABLE, str(tmp_path / "none.onnx"))
    with pytest.raises(ModelError, match="cannot be read"):
        load_detector(runtime, NOWHERE)


def test_a_camera_without_yunet_says_which_detector_it_uses(
    chips: list[Image], runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(yunet.VARIABLE, raising=False)
    monkeypatch.setattr(camera_session, "load_detector", lambda runtime: load_detector(runtime, NOWHERE))
    film = video(tmp_path / "film.mp4", [chips[3]], frames=10)
    bundle = make_bundle(tmp_path / "bundle")
    asked = camera_session.CameraOptions(
        source=str(film),
        model=str(bundle.folder),
        headless=True,
        output=tmp_path / "a.mp4",
        events=tmp_path / "a.jsonl",
    )
    done = camera_session.run(asked, runtime)
    assert (done.frames, done.detector) == (10, "Haar cascade")
    assert done.faces >= 8
    assert "less exact" in done.notes[0]
    assert len(read(tmp_path / "a.mp4")) == 10
    assert {json.loads(line)["range"] for line in (tmp_path / "a.jsonl").read_text().splitlines()}
