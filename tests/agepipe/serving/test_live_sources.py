"""Frames of a live source: the newest wins, what nobody had time for is counted, and an end is noticed."""

import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pages import jpeg, scene
from videos import video, written

from agepipe.core.errors import SourceError
from agepipe.serving import sources
from agepipe.serving.sources import LiveSource, Source, open_source


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A video read as fast as it comes, as a stream that ends."""
    monkeypatch.setattr(sources, "PAUSE", 0.02)
    monkeypatch.setattr(sources, "TRIES", 2)
    return f"file://{video(tmp_path / 'live.mp4', [], frames=60)}"


def test_the_newest_frame_wins_and_the_others_are_counted(stream: str) -> None:
    source = open_source(stream)
    assert isinstance(source, LiveSource)
    taken = []
    for frame in source.frames():
        taken.append(frame.seconds)
        time.sleep(0.05)
        if len(taken) == 5:
            break
    assert taken == sorted(taken)
    (note,) = [note for note in source.notes() if "dropped" in note]
    assert int(note.split()[0]) > 5


def broken(source: Source) -> bool:
    return any("broke off" in note for note in source.notes())


def test_a_stream_that_breaks_off_is_opened_again_and_the_break_is_told(stream: str) -> None:
    source = open_source(stream)
    seen = 0
    for _ in source.frames():
        seen += 1
        if broken(source):
            break
    assert seen > 0
    assert broken(source)


@pytest.mark.parametrize(("said", "rate"), [(12.0, 12.0), (1000.0, sources.RATE), (90000.0, sources.RATE)])
def test_a_rate_that_no_stream_has_is_not_taken(said: float, rate: float, tmp_path: Path) -> None:
    """An annotated video of such a rate would repeat each frame until the disk is full."""
    written(tmp_path / "live.avi", [np.zeros((64, 64, 3), np.uint8)] * 5, "MJPG", said)
    source = open_source(f"file://{tmp_path / 'live.avi'}")
    assert source.live and source.rate == rate


def animation(path: Path, width: int, height: int) -> Path:
    """A GIF of two small pictures that announces frames of this size."""
    kept = io.BytesIO()
    first, second = (PIL.Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    first.save(kept, "GIF", save_all=True, append_images=[second])
    data = bytearray(kept.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_frames_that_are_too_large_are_refused_before_one_is_decoded(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_PIXELS", 1000 * 1000)
    assert open_source(f"{prefix}{animation(tmp_path / 'small.gif', 1000, 1000)}")
    with pytest.raises(SourceError, match=r"--source: .*large\.gif .*1001×1000"):
        open_source(f"{prefix}{animation(tmp_path / 'large.gif', 1001, 1000)}")


@pytest.fixture
def stalling() -> Iterator[str]:
    """A stream over HTTP that sends thirty frames to whoever comes, and then nothing more."""
    listener, kept = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def serve() -> None:
        while True:
            try:
                kept.append(listener.accept()[0])
                kept[-1].sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/x-mjpeg\r\n\r\n" + jpeg(scene()) * 30)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/film.mjpeg"
    listener.shutdown(socket.SHUT_RDWR)
    for one in (listener, *kept):
        one.close()
    thread.join(10)


def test_a_stream_that_stalls_is_noticed_told_and_opened_again(
    stalling: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources, "STALL", 1.0)
    monkeypatch.setattr(sources, "PAUSE", 0.02)
    source, start = open_source(stalling), time.monotonic()
    for _ in source.frames():
        if broken(source):
            break  # a frame after the break: it was opened again
    assert f"The camera or stream {stalling} broke off; it is opened again, 5 times at most." in caplog.text
    assert time.monotonic() - start < 25, "FFmpeg's own limit is 30 s"
    assert "The source broke off 1 times." in source.notes()


def test_a_stream_that_is_gone_ends(stream: str) -> None:
    source = open_source(stream)
    Path(stream.removeprefix("file://")).unlink()
    assert list(source.frames()) is not None
    assert "did not come back" in source.notes()[-1]
