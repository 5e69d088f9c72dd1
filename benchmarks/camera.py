"""How fast the camera is on a file: 640×480 px, moving faces that are drawn, a network as large as laptop's.

    python -m benchmarks.camera --detector YUNET.onnx [--model BUNDLE] [--frames 600] [--memory 10000]

The speed of a shared machine varies, so each row is the median of rounds in turns, and beside the clock stands the
processor's time of the whole process, decoding and encoding in it, which other programs disturb less: a thousand by it
is what one core does in a second. `late` is the 95th percentile from a frame that is read to the frame that is drawn,
by the clock and by the processor's time of the thread that does it. Memory is that of the process.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from agepipe.data.sample import source as sample
from agepipe.model.imaging import Image, decode, fit
from agepipe.model.predictor import Predictor
from agepipe.serving import camera, sinks
from agepipe.serving.camera import Camera, one_thread
from agepipe.serving.detect.yunet import YuNet, checked
from agepipe.serving.model_source import FixedModel
from agepipe.serving.sinks import AnnotatedFrame, Sink
from agepipe.serving.sources import RATE, Frame, Video
from agepipe.training.network import AgeNetwork
from benchmarks import untrained
from benchmarks.scenes import PLACES, SIDE, background, pasted


class Clock(Video):
    """A video that notes when each frame was there."""

    clock = processor = 0.0

    def frames(self) -> Iterator[Frame]:
        """The frames."""
        for frame in super().frames():
            self.clock, self.processor = time.perf_counter(), time.thread_time()
            yield frame


class Late:
    """Notes how long each frame took until it was drawn; the first in the list of sinks."""

    def __init__(self, source: Clock) -> None:
        self._source, self.memory = source, list[int]()
        self.clock, self.processor = list[float](), list[float]()

    def write(self, result: AnnotatedFrame) -> None:  # noqa: ARG002 - the moment is all
        """Note it."""
        self.clock.append(time.perf_counter() - self._source.clock)
        self.processor.append(time.thread_time() - self._source.processor)
        if len(self.clock) % 50 == 0:
            self.memory.append(psutil.Process().memory_info().rss)

    def close(self) -> None:
        """Nothing is kept."""


class Run(NamedTuple):
    """What was measured of one video."""

    rate: float
    """Frames a second."""
    processor: float
    """Milliseconds of the processor a frame."""
    late: float
    """Milliseconds from read to drawn, 95th percentile."""
    late_processor: float
    """The same by the processor's time."""
    faces: float
    """Found in a frame."""
    memory: list[int]
    """Bytes, every 50 frames."""


def film(path: Path, faces: int, frames: int) -> Path:
    """Write a video of drawn faces that sway."""
    chips = [decode(sample.encoded(chip, 7)) for chip in sample.plan(28, 7)[:faces]]
    scene = background(np.random.default_rng(0))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (640, 480))
    for at in range(frames):
        image = scene
        for chip, (left, top) in zip(chips, PLACES, strict=False):
            image = pasted(
                image, chip, (left + 12 * np.sin(at / 9), top + 5 * np.sin(at / 7)), SIDE, 4 * np.sin(at / 8)
            )
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def looked(path: Path, place: Path, detector: Path, more: Sequence[Sink] = ()) -> Run:
    """Run the camera on a video."""
    source, eyes = Clock(path), Camera(FixedModel(place, "benchmark"), YuNet(detector))
    late = Late(source)
    wall, processor = time.perf_counter(), time.process_time()
    done = camera.run(source, eyes, [late, *more])
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Run(
        done.frames / wall, 1000 * processor / done.frames, 1000 * float(np.quantile(late.clock, 0.95)),
        1000 * float(np.quantile(late.processor, 0.95)), done.faces / done.frames, late.memory,
    )  # fmt: skip


def _table(folder: Path, place: Path, detector: Path, frames: int, rounds: int) -> None:
    films = {count: film(folder / f"{count}.mp4", count, frames) for count in (1, 2, 4)}
    found: dict[str, list[Run]] = {}
    for _ in range(rounds):
        for count, path in films.items():
            found.setdefault(f"{count} faces", []).append(looked(path, place, detector))
        video = sinks.output_sink(folder / "out.mp4", RATE)
        found.setdefault("1 face, video written", []).append(looked(films[1], place, detector, [video]))
    print(f"{'':<24} found   frames/s   late, ms   by the processor: ms a frame   late, ms")
    for name, runs in found.items():
        rate, processor, late, own, faces = (statistics.median(part) for part in list(zip(*runs, strict=True))[:5])
        print(f"{name:<24} {faces:>5.2f} {rate:>10.0f} {late:>10.1f} {processor:>30.1f} {own:>10.1f}", flush=True)


def _against_torch(network: AgeNetwork, predictor: Predictor, rounds: int) -> None:
    chip = fit(decode(sample.encoded(sample.plan(28, 7)[0], 7)), predictor.card.size)[None]
    torch.set_num_threads(1)

    def eager(images: NDArray[np.uint8]) -> None:
        with torch.inference_mode():
            network(torch.from_numpy(images))

    pairs = [(_ms(predictor.predict, chip), _ms(eager, chip)) for _ in range(rounds)][10:]
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"one face: ONNX Runtime {own:.1f} ms, eager PyTorch {other:.1f} ms, ratio {other / own:.1f}", flush=True)


def _ms(predict: object, images: Image) -> float:
    start = time.perf_counter()
    predict(images)  # type: ignore[operator]
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of a bundle; by default one as large as laptop's, untrained")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=2000, help="frames over which memory is watched")
    given = parser.parse_args()
    one_thread()
    detector = checked(given.detector)
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as name:
        folder = Path(name)
        network = untrained.bundle(folder / "bundle")
        place = given.model or folder / "bundle"
        _table(folder, place, detector, given.frames, given.rounds)
        _against_torch(network, Predictor.load(folder / "bundle"), 100)
        long = film(folder / "long.mp4", 1, given.memory)
        memory = looked(long, place, detector, [sinks.output_sink(folder / "long-out.mp4", RATE)]).memory
        early, last = memory[len(memory) // 10], memory[-1]
        print(f"memory with video written: {early / 1e6:.0f} MB after a tenth, {last / 1e6:.0f} MB at the end")


if __name__ == "__main__":
    main()
