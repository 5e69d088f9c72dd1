"""Videos made from real chips, pasted on a background, that move, turn and grow."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from agepipe.model.imaging import Image
from benchmarks.scenes import background, pasted

RATE = 25.0


def scene(chips: Sequence[Image], at: int) -> Image:
    """Up to two chips in a frame, the first moving and turning, the second still."""
    image = background(np.random.default_rng(0))
    if chips:
        centre = (170 + 2.0 * at, 210 + 15 * np.sin(at / 9))
        image = pasted(image, chips[0], centre, 160 + 0.5 * at, 8 * np.sin(at / 8))
    return pasted(image, chips[1], (540, 380), 130) if len(chips) > 1 else image


def written(path: Path, frames: Sequence[Image], codec: str = "mp4v", rate: float = RATE) -> Path:
    """Write frames of one size, RGB."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def video(path: Path, chips: Sequence[Image], frames: int = 30) -> Path:
    """Write a video of the chips, 640×480."""
    return written(path, [scene(chips, at) for at in range(frames)])


def read(path: Path) -> list[Image]:
    """All frames of a video, RGB."""
    capture, found = cv2.VideoCapture(str(path)), []
    while (frame := capture.read())[0]:
        found.append(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return found
