"""The time of a video's frames follows the stream's timestamps, and survives those that cannot be right."""

import math
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import make_bundle
from chips import detector_file, real_chips
from videos import RATE, scene, video, written

from agepipe.serving import camera
from agepipe.serving.camera import Camera, Summary
from agepipe.serving.clock import Clock
from agepipe.serving.detect.yunet import YuNet
from agepipe.serving.model_source import FixedModel
from agepipe.serving.sinks import AnnotatedFrame, Events, Recorder, Sink
from agepipe.serving.sources import Video


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([0, 0.04, 0.08, 5.0, 5.04], [0, 0.04, 0.08, 5.0, 5.04]),
        ([7.5, 7.54, 9.5], [0, 0.04, 2.0]),
        ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),
        ([0, 1, 1, 2], [0, 1, 1, 2]),
        ([0, 1, math.nan, 2], [0, 1, 1.1, 2]),
        ([math.nan, math.nan, math.inf], [0, 0.1, 0.2]),
        ([0, 1, 0.96, 1.04], [0, 1, 1, 1.04]),
        ([0, 1, 2, 0, 1], [0, 1, 2, 2.1, 3.1]),
        ([0, 1, 9e9, 9e9 + 1], [0, 1, 1.1, 2.1]),
        ([-0.5, 0, 0.5], [0, 0.5, 1.0]),
    ],
)
def test_seconds_follow_the_timestamps_as_far_as_these_can_be_right(stamps: list[float], expected: list[float]) -> None:
    clock = Clock(10.0)
    found = [clock.at(stamp) for stamp in stamps]
    assert found == pytest.approx(expected)
    assert found == sorted(found)


FILMED = "setpts='if(lt(N,30),N/30,1+(N-30))/TB'"
"""Thirty frames in a second, then one a second."""


def filmed(path: Path, folder: Path, *options: str, frames: int = 40) -> Path:
    """A video of a variable frame rate; every frame is different."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to make videos of variable frame rates")
    for at in range(frames):
        image = np.full((96, 128, 3), 60, np.uint8)
        cv2.circle(image, (20 + 2 * at, 48), 12, (200, 160, 40), cv2.FILLED)
        cv2.imwrite(str(folder / f"f_{at:04}.png"), image)
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-y", "-framerate", "30", "-i", str(folder / "f_%04d.png"), "-vf", FILMED,
         "-fps_mode", "vfr", "-pix_fmt", "yuv420p", *options, str(path)],
        check=True, timeout=60,
    )  # fmt: skip
    return path


KINDS = [
    ("vfr.mp4", ("-c:v", "libx264")),
    ("recorder.webm", ("-c:v", "libvpx", "-live", "1", "-f", "webm")),
    ("offset.mkv", ("-c:v", "libx264", "-output_ts_offset", "100")),
]


class Watch:
    """Keeps the time of each frame."""

    def __init__(self) -> None:
        self.seconds = list[float]()

    def write(self, result: AnnotatedFrame) -> None:
        self.seconds.append(result.frame.seconds)

    def close(self) -> None:
        pass


def looked(path: Path, folder: Path, shared: Path, *sinks: Sink, source: Video | None = None) -> tuple[Video, Summary]:
    source = source or Video(path)
    bundle = make_bundle(folder / "bundle").folder
    return source, camera.run(source, Camera(FixedModel(bundle, "x"), YuNet(detector_file(shared))), sinks)


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_variable_frame_rate_keeps_its_times_and_its_length(
    name: str, options: tuple[str, ...], tmp_path: Path, shared: Path
) -> None:
    path, watch = filmed(tmp_path / name, tmp_path, *options), Watch()
    source = Video(path)
    assert source.rate == pytest.approx(30, abs=1)
    _, done = looked(path, tmp_path, shared, watch, Recorder(tmp_path / "out.mp4", source.rate), source=source)
    assert watch.seconds[30] == pytest.approx(1.0, abs=0.05)
    assert watch.seconds[-1] == pytest.approx(10.0, abs=0.05)
    assert done.notes == []
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0, abs=0.5)
    capture.release()


def test_a_constant_rate_gives_as_many_frames_as_it_takes(tmp_path: Path, shared: Path) -> None:
    path = video(tmp_path / "film.mp4", [], frames=30)
    watch = Watch()
    source, _ = looked(path, tmp_path, shared, watch, Recorder(tmp_path / "out.mp4", RATE))
    assert source.rate == RATE
    assert watch.seconds == pytest.approx([at / RATE for at in range(30)], abs=0.002)
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 30
    capture.release()


def test_frames_of_one_colour_are_unreadable_and_dark_ones_are_not(
    tmp_path: Path, shared: Path, sample_archive: Path
) -> None:
    face = scene(real_chips(sample_archive, step=70)[0][1:2], 5)
    black = np.zeros_like(face)
    dark = np.random.default_rng(0).integers(0, 12, face.shape, dtype=np.uint8)
    path = written(tmp_path / "film.avi", [face, black, black, dark, face], "MJPG")
    events = Events(tmp_path / "out.jsonl")
    _, done = looked(path, tmp_path, shared, events)
    assert (done.frames, done.blank, done.faces) == (5, 2, 2)
    assert [note for note in done.notes if note.startswith("2 of 5 frames")]
    _, fine = looked(written(tmp_path / "dark.avi", [dark] * 3, "MJPG"), tmp_path, shared)
    assert (fine.blank, fine.notes) == (0, [])


def test_a_video_that_the_user_ends_is_not_said_to_be_short(tmp_path: Path, shared: Path) -> None:
    source = Video(video(tmp_path / "film.avi", [], frames=30))
    eyes = Camera(FixedModel(make_bundle(tmp_path / "bundle").folder, "x"), YuNet(detector_file(shared)))
    watch = Watch()
    done = camera.run(source, eyes, [watch], stop=lambda: len(watch.seconds) == 5)
    assert (done.frames, done.stopped, done.notes) == (5, True, [])
    bounded = Video(tmp_path / "film.avi")
    assert camera.run(bounded, eyes, [], max_frames=3).notes == []


def test_a_video_that_is_cancelled_is_not_said_to_be_short(tmp_path: Path, shared: Path) -> None:
    class Cancelled:
        def write(self, result: AnnotatedFrame) -> None:
            raise RuntimeError("cancelled")

        def close(self) -> None:
            pass

    source, done = Video(video(tmp_path / "film.avi", [], frames=30)), Summary()
    eyes = Camera(FixedModel(make_bundle(tmp_path / "bundle").folder, "x"), YuNet(detector_file(shared)))
    with pytest.raises(RuntimeError):
        camera.run(source, eyes, [Cancelled()], summary=done)
    assert done.notes == []


def test_a_face_is_followed_where_a_frame_comes_once_a_second(tmp_path: Path) -> None:
    from test_tracker import face, said

    from agepipe.serving.tracker import Tracker

    tracker = Tracker()
    times = [0.0, 0.04, 0.08, 1.08, 2.08, 3.08]
    numbers = [tracker.update([face(0)], said([1, 0]), now)[0].number for now in times]
    assert len(set(numbers[3:])) == 1
