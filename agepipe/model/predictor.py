"""Run the exported network in ONNX Runtime, without torch: probabilities and years of pictures.

It uses one thread by default: with two, latency increases many times as soon as another process needs a core.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from agepipe.core.errors import DataError, ModelError, first_line
from agepipe.core.progress import Progress, silent
from agepipe.model.bundle import CARD, NETWORK, Card, read_card
from agepipe.model.decoding import decide

BATCH = 256
"""Pictures in a batch; this bounds the memory, and larger batches are no faster on a CPU."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

BROKEN = (
    runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf,
    runtime.NoSuchFile, runtime.NotImplemented, runtime.RuntimeException,
)  # fmt: skip
"""What ONNX Runtime raises for a file or graph that it cannot run; these have no common base but Exception."""


class Prediction(NamedTuple):
    """The predictions of a network for `n` pictures."""

    probabilities: NDArray[np.float32]
    """`(n, classes)`, columns in the order of the card's ranges."""
    years: NDArray[np.float32]
    """`(n,)`, age in years, clipped to the predicted range unless raw ages were requested."""


class Predictor:
    """A loaded bundle; safe to call from several threads."""

    def __init__(self, card: Card, session: onnxruntime.InferenceSession) -> None:
        """Use `Predictor.load`."""
        self.card = card
        self._session = session

    @classmethod
    def load(cls, folder: Path, threads: int = 1, device: str = "cpu") -> Self:
        """Load a bundle.

        Args:
            folder: the bundle.
            threads: threads of one prediction on the CPU.
            device: `cpu`; `cuda`, which needs the package onnxruntime-gpu; or `auto`, a GPU if that is installed.

        Raises:
            ModelError: a file is missing or damaged, the graph does not agree with the card, or there is no CUDA.
        """
        card = read_card(folder)
        session = _session(folder / NETWORK, threads, device)
        _check_graph(folder, card, session)
        return cls(card, session)

    def predict(self, images: NDArray[np.uint8], progress: Progress = silent) -> Prediction:
        """Predict pictures, uint8 `(n, size, size, 3)` RGB at the card's size, which may be memory-mapped.

        Raises:
            DataError: another type or shape.
            ModelError: the network fails, or returns values that are not finite.
        """
        self._check_images(images)
        starts = range(0, len(images), BATCH)
        return self.predict_batches((images[start : start + BATCH] for start in starts), len(images), progress)

    def predict_batches(
        self, batches: Iterable[NDArray[np.uint8]], total: int, progress: Progress = silent, *, raw: bool = False
    ) -> Prediction:
        """Predict batches of pictures, of which only one has to be in memory at a time.

        With `raw` the ages are not clipped to the predicted ranges.

        Raises:
            DataError: another type or shape.
            ModelError: the network fails, or returns values that are not finite.
        """
        parts = list(self._parts(batches, total, progress))
        empty = np.empty((0, len(self.card.ranges)), dtype=np.float32)
        found = Prediction(
            np.concatenate([empty, *(part.probabilities for part in parts)]),
            np.concatenate([empty[:, 0], *(part.years for part in parts)]),
        )
        return found if raw else self._clipped(found)

    def _parts(self, batches: Iterable[NDArray[np.uint8]], total: int, progress: Progress) -> Iterator[Prediction]:
        done = 0
        for batch in batches:
            self._check_images(batch)
            yield self._run(batch)
            done += len(batch)
            progress(done, total, "pictures predicted")

    def _run(self, batch: NDArray[np.uint8]) -> Prediction:
        try:
            probabilities, years = self._session.run(
                ["probabilities", "years"], {"images": np.ascontiguousarray(batch)}
            )
        except BROKEN as error:
            raise ModelError(f"{NETWORK}: the network failed on {batch.shape} ({first_line(error)[:200]}).") from error
        found = Prediction(np.asarray(probabilities, dtype=np.float32), np.asarray(years, dtype=np.float32))
        expected = ((len(batch), len(self.card.ranges)), (len(batch),))
        if (found.probabilities.shape, found.years.shape) != expected:
            raise ModelError(f"{NETWORK}: returns shapes {[a.shape for a in found]}, but {expected} are needed.")
        if not all(np.isfinite(values).all() for values in found):
            raise ModelError(f"{NETWORK}: returns values that are not finite; train or export the model again.")
        return found

    def _clipped(self, found: Prediction) -> Prediction:
        """Clip the ages to the predicted ranges, so that evaluation uses the same ages as serving."""
        labels = decide(found.probabilities, self.card.decoding)
        return found._replace(years=self.card.ranges.within(labels, found.years).astype(np.float32))

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        needed = (self.card.size, self.card.size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != needed:
            raise DataError(
                f"images: {images.dtype} {images.shape}, but uint8 (n, {', '.join(map(str, needed))}) RGB is needed; "
                "resize pictures with agepipe.model.imaging.fit."
            )


def _session(path: Path, threads: int, device: str) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; give the folder of an exported model.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    wanted = [CPU] if device == "cpu" or CUDA not in onnxruntime.get_available_providers() else [CUDA, CPU]
    if CUDA in wanted:
        onnxruntime.preload_dlls()  # the libraries of CUDA that pip has installed, if there are any
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except BROKEN as error:
        raise ModelError(
            f"{path}: not a network that can be run ({first_line(error)[:200]}); export it again."
        ) from error
    if device == "cuda" and CUDA not in session.get_providers():
        raise ModelError(
            f"device: 'cuda', but ONNX Runtime has {', '.join(session.get_providers())}; install onnxruntime-gpu in "
            "place of onnxruntime and a driver for the GPU, or take 'cpu'."
        )
    return session


def _check_graph(folder: Path, card: Card, session: onnxruntime.InferenceSession) -> None:
    inputs = {item.name: item for item in session.get_inputs()}
    outputs = {item.name: item for item in session.get_outputs()}
    if set(inputs) != {"images"} or not {"probabilities", "years"} <= set(outputs):
        raise ModelError(
            f"{folder / NETWORK}: takes {sorted(inputs)} and gives {sorted(outputs)}, but a bundle's network takes "
            "'images' and gives 'probabilities' and 'years'."
        )
    if inputs["images"].type != "tensor(uint8)" or not _fits(inputs["images"].shape, (card.size, card.size, 3)):
        raise ModelError(
            f"{folder / NETWORK}: takes {inputs['images'].type} {inputs['images'].shape}, but {CARD} says uint8 "
            f"[N, {card.size}, {card.size}, 3]; the two files are not of one export."
        )
    if not _fits(outputs["probabilities"].shape, (len(card.ranges),)):
        raise ModelError(
            f"{folder / NETWORK}: gives {outputs['probabilities'].shape[-1]} classes, but {CARD} names "
            f"{len(card.ranges)} ranges; the two files are not of one export."
        )


def _fits(found: list[int | str | None], expected: tuple[int, ...]) -> bool:
    """Whether the fixed sizes after the first agree; a name or None is a variable size."""
    sizes = found[1:]
    pairs = zip(sizes, expected, strict=False)
    return len(sizes) == len(expected) and all(not isinstance(size, int) or size == wanted for size, wanted in pairs)
