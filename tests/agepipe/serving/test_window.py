"""The camera's window on a real X server without a screen, in a process of its own: its keys, and what closing it does.

Only the keyboard stands in: each key comes at a frame, as OpenCV gives it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from bundles import make_bundle
from chips import detector_file, real_chips
from videos import video

from agepipe.serving.detect import yunet

FRAMES = 40
WATCH = """
import json, sys
from pathlib import Path
import cv2
from agepipe.serving import camera_session as session, window
from agepipe.config.runtime import Runtime

film, bundle, workspace, typed = sys.argv[1:]
waiting, wait = iter(typed), cv2.waitKey

def key(ms):
    wait(ms)
    pressed = next(waiting, ".")
    if pressed == "X":
        cv2.destroyWindow(window.TITLE)
    return -1 if pressed in ".X" else ord(pressed)

cv2.waitKey = key
done = session.run(session.Asked(source=film, model=bundle), Runtime(workspace=Path(workspace)))
print(json.dumps({"frames": done.frames, "stopped": done.stopped}))
"""


@pytest.fixture
def display() -> Iterator[str]:
    """An X server that draws into memory; the test is skipped where there is none."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("needs an X server without a screen; Xvfb was not found")
    reader, writer = os.pipe()
    process = subprocess.Popen([server, "-displayfd", str(writer)], pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with os.fdopen(reader) as told:
            yield f":{told.readline().strip()}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def film(tmp_path: Path, sample_archive: Path) -> Path:
    return video(tmp_path / "film.mp4", real_chips(sample_archive, step=70)[0][8:9], frames=FRAMES)


def watched(film: Path, display: str, shared: Path, typed: str) -> dict[str, Any]:
    """What a camera in a window did while these keys were pressed, a frame each; `.` is none, `X` closes the window."""
    folder = film.parent
    words = (film, make_bundle(folder / "bundle").folder, folder / "workspace", typed)
    environ = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb", yunet.VARIABLE: str(detector_file(shared))}
    environ.pop("WAYLAND_DISPLAY", None)
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *map(str, words)], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_film_is_shown_to_its_end(film: Path, display: str, shared: Path) -> None:
    assert watched(film, display, shared, "") == {"frames": FRAMES, "stopped": False}


def test_a_window_that_is_closed_ends_the_program(film: Path, display: str, shared: Path) -> None:
    assert watched(film, display, shared, "...X") == {"frames": 4, "stopped": True}


def test_snapshot_help_pause_and_quit(film: Path, display: str, shared: Path) -> None:
    # the third frame is kept with the help on it, the fourth is paused on for three keys, the sixth is the last
    assert watched(film, display, shared, "shsp..p.q") == {"frames": 6, "stopped": True}
    plain, helped = (cv2.imread(str(path)) for path in sorted((film.parent / "workspace/snapshots").glob("*.png")))
    assert plain.shape == helped.shape == (480, 640, 3)
    text = [(picture[150:240, :120] > 200).all(axis=-1).sum() for picture in (plain, helped)]
    assert text[0] == 0
    assert text[1] > 300
