"""How often the range of a still face changes: as a trained network says it of each frame, and as the camera shows it.

    python -m studies.steadiness UTKFACE.tar --model BUNDLE --detector face_detection_yunet_2026may.onnx

Chips that the model has not seen sit still in scenes of 640×480 px, four at a time, before a camera with noise, first
on a stand and then in a hand. The frames go through the camera itself, at 25 a second by their own clock.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.decoding import decide
from agepipe.model.imaging import Image
from agepipe.model.predictor import Prediction
from agepipe.serving.camera import Camera, one_thread
from agepipe.serving.detect.yunet import YuNet, checked
from agepipe.serving.model_source import FixedModel
from agepipe.serving.sources import RATE, Frame
from benchmarks.scenes import PLACES, SIDE, background, pasted
from studies.alignment import unseen

NOISE, FLICKER = 6.0, 0.01
"""Standard deviations: of a pixel, of 255, and of the brightness of a frame, as a share. (A webcam indoors.)"""
SHIFT, TURN, SCALE = 1.0, 0.5, 0.01
"""Standard deviations of a hand between two frames: px, degrees, and a share of the size."""


class Heard(FixedModel):
    """A model that keeps what it said last."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "benchmark")
        self.card, self._predict = self.predictor.card, self.predictor.predict
        self.said: Prediction | None = None
        self.predictor.predict = self.predict  # type: ignore[method-assign, assignment]

    def predict(self, images: NDArray[np.uint8]) -> Prediction:
        """Answer and keep the answer."""
        self.said = self._predict(images)
        return self.said


class Seen(NamedTuple):
    """One face over all frames."""

    said: list[int]
    """Classes as the network says them of each frame."""
    shown: list[int]
    """Classes as the camera shows them."""
    years: list[float]
    """As the network says them."""
    calm: list[float]
    """As the camera shows them."""


def scenes(chips: Sequence[Image], frames: int, hand: float, random: np.random.Generator) -> Iterator[Image]:
    """Frames of still faces; `hand` scales how the camera moves."""
    back = background(random)
    for _ in range(frames):
        image = back
        shift, turn, scale = random.normal(0, SHIFT, 2) * hand, random.normal(0, TURN * hand), random.normal(0, SCALE)
        for chip, place in zip(chips, PLACES, strict=False):
            centre = (float(place[0] + shift[0]), float(place[1] + shift[1]))
            image = pasted(image, chip, centre, SIDE * (1 + hand * scale), turn)
        noise = np.empty(image.shape, np.float32)
        cv2.randn(noise, np.zeros(3), np.full(3, NOISE))
        light = image * np.float32(random.normal(1, FLICKER)) + noise
        yield np.clip(light, 0, 255).astype(np.uint8)


def looked(model: Heard, detector: YuNet, frames: Iterator[Image]) -> list[Seen]:
    """What the camera makes of the frames, for each face that it followed."""
    camera = Camera(model, detector)
    found: defaultdict[int, Seen] = defaultdict(lambda: Seen([], [], [], []))
    for at, image in enumerate(frames):
        tracks = camera.process(Frame(image, at / RATE))
        if not tracks or model.said is None:
            continue
        labels = decide(model.said.probabilities, model.card.decoding)
        for track, label, years in zip(tracks, labels, model.said.years, strict=True):
            seen = found[track.number]
            seen.said.append(int(label))
            seen.shown.append(track.label)
            seen.years.append(float(years))
            seen.calm.append(track.years)
    return list(found.values())


def changes(labels: Sequence[int]) -> int:
    """How often the range became another one."""
    return int((np.diff(labels) != 0).sum())


def line(name: str, faces: Sequence[Seen]) -> str:
    """A row of the table."""
    seconds = sum(len(face.said) for face in faces) / RATE
    said, shown = ([changes(getattr(face, kind)) for face in faces] for kind in ("said", "shown"))
    spread, calm = (np.median([np.std(getattr(face, kind)) for face in faces]) for kind in ("years", "calm"))
    return (
        f"{name:<12} {len(faces):>5} {seconds:>7.0f}   {sum(said) / seconds:>5.2f} {sum(shown) / seconds:>6.2f}   "
        f"{sum(count > 0 for count in said):>5} {sum(count > 0 for count in shown):>6}   {spread:>6.2f} {calm:>6.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="archives or folders of UTKFace's chips")
    parser.add_argument("--model", type=Path, required=True, help="folder of a bundle")
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=24)
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args()
    one_thread()
    cv2.setRNGSeed(1)
    pairs = list(unseen(given.data, given.model))
    chips = [pairs[row][0] for row in np.random.default_rng(1).permutation(len(pairs))[: given.faces]]
    detector, model = YuNet(checked(given.detector)), Heard(given.model)
    print(f"{'':<12} {'':>13}   changes a second   faces that change   spread, years")
    print(f"{'':<12} faces seconds    said  shown    said  shown     said  shown")
    for name, hand in (("on a stand", 0.0), ("in a hand", 1.0)):
        random, faces = np.random.default_rng(2), list[Seen]()
        for start in range(0, len(chips), len(PLACES)):
            part = scenes(chips[start : start + len(PLACES)], int(given.seconds * RATE), hand, random)
            faces += looked(model, detector, part)
        print(line(name, faces), flush=True)


if __name__ == "__main__":
    main()
