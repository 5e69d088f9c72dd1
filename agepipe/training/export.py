"""Export a trained network to ONNX, and check that it predicts the same as in torch."""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import hub

from agepipe.core.errors import ModelError, first_line
from agepipe.training.network import AgeNetwork

TOLERANCE = 1e-4
"""Largest difference between ONNX and torch of a probability, and of an age in hundreds of years."""
OPSET = 18


def export(network: AgeNetwork, images: NDArray[np.uint8], path: Path) -> None:
    """Export a network.

    The input of the ONNX model is `images`, uint8 `[N, s, s, 3]`, its outputs are `probabilities`, float32
    `[N, classes]`, and `years`, float32 `[N]`; the batch size N is dynamic.

    Args:
        network: a trained network on the CPU.
        images: stored pictures, uint8 RGB `(n, s, s, 3)`, at least 2, on which ONNX and torch are compared.
        path: the file to write.

    Raises:
        ModelError: the network cannot be exported, or its predictions differ; nothing is written.
    """
    network = network.eval().to(memory_format=torch.contiguous_format)
    content = _onnx(network, torch.from_numpy(images[:2]))
    compare(network, content, images)
    path.write_bytes(content)


def compare(network: AgeNetwork, content: bytes, images: NDArray[np.uint8]) -> None:
    """Refuse an exported network whose predictions differ from those of torch by more than `TOLERANCE`.

    Args:
        network: the network, on the CPU.
        content: the ONNX model.
        images: stored pictures, uint8 RGB `(n, s, s, 3)`.

    Raises:
        ModelError: names the differences.
    """
    with torch.inference_mode():
        probabilities, years = network(torch.from_numpy(images))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs = session.run(["probabilities", "years"], {"images": images})
    difference = float(np.abs(outputs[0] - probabilities.numpy()).max())
    years_difference = float(np.abs(outputs[1] - years.numpy()).max())
    if not (difference <= TOLERANCE and years_difference <= 100 * TOLERANCE):  # also refuses NaN
        raise ModelError(
            f"model.onnx: differs from the trained network by {difference:.2g} in probability and "
            f"{years_difference:.2g} years on {len(images)} pictures, at most {TOLERANCE:g} and {100 * TOLERANCE:g} "
            "are allowed; it was not written."
        )


def _onnx(network: AgeNetwork, example: torch.Tensor) -> bytes:
    try:
        with _quiet():
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=OPSET, input_names=["images"],
                output_names=["probabilities", "years"], dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise ModelError(f"model.onnx: this network cannot be exported ({first_line(error)}).") from error
    if program is None:
        raise ModelError("model.onnx: torch's exporter returned nothing; report this with the name of the network.")
    return _without_metadata(program.model_proto)


def _without_metadata(model: onnx.ModelProto) -> bytes:
    """Remove the exporter's metadata: it contains paths of this machine, which would change the digest."""
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress bar, warnings and log."""
    bar = vars(hub)["tqdm"]
    if hasattr(bar, "set_lock"):
        bar.set_lock(threading.RLock())  # tqdm's default lock is a semaphore, which is reported as leaked at exit
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
