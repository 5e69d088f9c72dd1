"""What a camera does with sources that are broken, odd or crowded: one clear message, the rest goes on."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import make_bundle
from chips import detector_file, real_chips
from photographs import jpeg, png_bomb
from videos import read, video, written

from agepipe.config.runtime import Runtime
from agepipe.core.errors import SourceError
from agepipe.model.imaging import Image, Limits, photograph
from agepipe.serving import camera_session, pictures, sources
from agepipe.serving.camera import Summary
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.detect import yunet
from benchmarks.scenes import background, pasted


@pytest.fixture
def here(runtime: Runtime, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    return runtime


def look(source: Path | str, folder: Path, runtime: Runtime) -> Summary:
    bundle = make_bundle(folder / "bundle").folder
    asked = CameraOptions(
        source=str(source), model=str(bundle), headless=True, output=folder / "out.mp4", events=folder / "out.jsonl"
    )
    return camera_session.run(asked, runtime)


def picture(path: Path, image: Image) -> Path:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def test_faces_that_are_too_small_are_counted_and_not_answered(
    here: Runtime, sample_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = real_chips(sample_archive, step=70)[0]
    scene = pasted(pasted(background(np.random.default_rng(0)), chips[3], (120, 240), 22), chips[5], (420, 220), 220)
    done = look(picture(tmp_path / "both.png", scene), tmp_path, here)
    assert (done.faces, done.too_small) == (1, 1)
    assert [note for note in done.notes if note.startswith("1 faces") and "24 px" in note]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    monkeypatch.setattr(pictures, "photograph", partial(photograph, limits=Limits(max_pixels=640 * 480)))
    done = look(picture(tmp_path / "large.jpg", cv2.resize(scene, (1280, 960))), tmp_path, here)
    assert [note for note in done.notes if note.startswith("1 faces") and "48 px" in note], "the file's own px"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("text.jpg", b"hello, no picture", "not an image"),
        ("empty.png", b"", "not an image"),
        ("half.jpg", jpeg(3)[:300], "truncated"),
        ("huge.png", png_bomb(20_000), "too large: 20000×20000 px"),
    ],
)
def test_a_single_picture_that_cannot_be_used_is_named_with_the_reason(
    name: str, data: bytes, why: str, here: Runtime, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=f"--source: .*{name}: {why}") as caught:
        look(tmp_path / name, tmp_path, here)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()


def test_faces_of_a_very_large_photograph_are_told_in_its_own_pixels(
    here: Runtime, sample_archive: Path, tmp_path: Path
) -> None:
    chip = real_chips(sample_archive, step=70)[0][1]
    scene = pasted(background(np.random.default_rng(0)), chip, (400, 240), 220)
    for name, scale in (("large.jpg", 12), ("small.jpg", 1)):
        picture(tmp_path / name, cv2.resize(scene, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR))
    boxes = {}
    for name in ("large.jpg", "small.jpg"):
        look(tmp_path / name, tmp_path, here)
        (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
        boxes[name] = np.array(json.loads(line)["box"])
    assert boxes["large.jpg"] == pytest.approx(12 * boxes["small.jpg"], rel=0.25)


def test_a_kind_of_picture_that_is_not_read_is_named(here: Runtime, tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(SourceError, match="HEIC picture; convert it to JPEG"):
        look(tmp_path / "IMG_1.HEIC", tmp_path, here)


def test_frames_without_faces_are_shown_and_nothing_is_said_of_them(here: Runtime, tmp_path: Path) -> None:
    done = look(video(tmp_path / "empty.mp4", [], frames=8), tmp_path, here)
    assert (done.frames, done.faces, done.tracks, done.notes, done.incomplete) == (8, 0, set(), [], False)
    assert len(read(tmp_path / "out.mp4")) == 8
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_a_video_that_is_cut_short_is_shown_as_far_as_it_goes_and_the_user_told(here: Runtime, tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.avi", video(tmp_path / "whole.avi", [], frames=50)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = look(path, tmp_path, here)
    assert 0 < done.frames < 50
    assert done.notes == [f"{path} announces 50 frames, but only {done.frames} were read."]
    assert done.incomplete
    assert len(read(tmp_path / "out.mp4")) == done.frames


def test_a_video_that_lost_its_index_is_refused(here: Runtime, tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.mp4", video(tmp_path / "whole.mp4", [], frames=50)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"cut\.mp4 is no video that can be read"):
        look(path, tmp_path, here)


def test_thirty_faces_are_each_answered_and_followed(here: Runtime, sample_archive: Path, tmp_path: Path) -> None:
    chips = real_chips(sample_archive, step=20)[0]
    crowd = background(np.random.default_rng(0), 1280, 960)
    for at in range(30):
        crowd = pasted(crowd, chips[at], (120 + 205 * (at % 6), 100 + 190 * (at // 6)), 170)
    done = look(written(tmp_path / "crowd.mp4", [crowd] * 5), tmp_path, here)
    assert len(done.tracks) >= 28
    assert done.faces >= 28 * 5
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len({event["track"] for event in events if event["frame"] == 4}) >= 28
    photograph = look(picture(tmp_path / "crowd.png", crowd), tmp_path, here)
    assert photograph.faces >= 28


class Busy:
    """A camera that another program uses, as V4L gives it: it opens, and no frame comes."""

    def isOpened(self) -> bool:  # noqa: N802 - as OpenCV calls it
        return True

    def get(self, what: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, None]:
        return False, None

    def release(self) -> None:
        pass


def test_a_camera_that_gives_no_frame_may_be_busy(
    here: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAUSE", 0.02)
    monkeypatch.setattr(sources, "_capture", lambda text: Busy())
    with pytest.raises(SourceError, match=r"--source: .* gave no picture.* no other program uses it"):
        look("0", tmp_path, here)
    assert not (tmp_path / "out.mp4").exists()
