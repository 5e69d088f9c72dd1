"""The page's server, run for real on a port of its own, and drawn faces to show it."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from agepipe.core.ports import bound
from agepipe.data.sample.portrait import portrait
from agepipe.model.imaging import Image
from agepipe.serving.web import server
from agepipe.serving.web.session import SharedModel
from benchmarks.scenes import background, pasted


@contextmanager
def served(shared: SharedModel, port: int = 0, token: str = "") -> Iterator[str]:
    """A server until the block ends; gives `127.0.0.1:PORT`."""
    listener = bound("--port", "127.0.0.1", port)
    running = server.server(shared, "127.0.0.1", token)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def drawn(age: int = 30, seed: int = 1) -> Image:
    """A drawn face, which is no person's, uint8 RGB 200×200."""
    return portrait(age, False, 1, (7, 1, seed))


def scene(at: float = 0.0, faces: Sequence[Image] = ()) -> Image:
    """A frame of 640×480 with one drawn face, or those that are given; they move with `at`."""
    image = background(np.random.default_rng(0))
    shown = faces or [drawn()]
    for number, face in enumerate(shown):
        centre = (640 * (number + 0.5) / len(shown) + 12 * np.sin(at / 9), 240 + 10 * np.cos(at / 7))
        image = pasted(image, face, centre, min(220, 440 / len(shown)), 4 * np.sin(at / 11))
    return image


def jpeg(image: Image) -> bytes:
    """As the page sends it."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))
    assert done
    return bytes(data)


def film(path: Path, faces: Sequence[Image] = (), frames: int = 60) -> Path:
    """A file that Chromium takes for a camera (.mjpeg): JPEGs one after the other, which it repeats."""
    path.write_bytes(b"".join(jpeg(scene(at, faces)) for at in range(frames)))
    return path
