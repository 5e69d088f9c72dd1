"""The trained network as one ONNX file, written only when it agrees with torch on real pictures."""

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

from agepipe.core.errors import ModelError
from agepipe.training.network import AgeNetwork

TOLERANCE = 1e-4
"""Largest difference of a probability, or of an age as a share of a hundred years, between the file and torch."""
OPSET = 18


def export(network: AgeNetwork, images: NDArray[np.uint8], path: Path) -> None:
    """Write `images` uint8 `[N, s, s, 3]` in, `probabilities` `[N, classes]` and `years` `[N]` out; N is free.

    Args:
        network: trained, on the CPU.
        images: real pictures as they lie in the store, at least 2, on which file and network are compared.
        path: the file to write; nothing is written when the two disagree.

    Raises:
        ModelError: the network cannot be exported, or the exported one answers differently.
    """
    network = network.eval().to(memory_format=torch.contiguous_format)
    content = _onnx(network, torch.from_numpy(images[:2]))
    compare(network, content, images)
    path.write_bytes(content)


def compare(network: AgeNetwork, content: bytes, images: NDArray[np.uint8]) -> None:
    """Refuse an exported network that does not answer as torch does.

    Raises:
        ModelError: says by how much they differ.
    """
    with torch.inference_mode():
        probabilities, years = network(torch.from_numpy(images))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    answers = session.run(["probabilities", "years"], {"images": images})
    apart = float(np.abs(answers[0] - probabilities.numpy()).max())
    years_apart = float(np.abs(answers[1] - years.numpy()).max())
    if not (apart <= TOLERANCE and years_apart <= 100 * TOLERANCE):  # also refuses what is not a number
        raise ModelError(
            f"model.onnx: differs from the trained network by {apart:.2g} in probability and {years_apart:.2g} years "
            f"on {len(images)} pictures, at most {TOLERANCE:g} and {100 * TOLERANCE:g} are allowed; it was not written."
        )


def _onnx(network: AgeNetwork, example: torch.Tensor) -> bytes:
    try:
        with _quiet():
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=OPSET, input_names=["images"],
                output_names=["probabilities", "years"], dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise ModelError(f"model.onnx: this network cannot be exported ({str(error).splitlines()[0]}).") from error
    if program is None:
        raise ModelError("model.onnx: torch's exporter returned nothing; report this with the name of the network.")
    return _plain(program.model_proto)


def _plain(model: onnx.ModelProto) -> bytes:
    """The model without the exporter's notes on source lines: they name paths and would differ from run to run."""
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
    """Keep the exporter's progress and advice off the terminal, also what its bar would leave behind at the end."""
    bar = vars(hub)["tqdm"]
    if hasattr(bar, "set_lock"):
        bar.set_lock(threading.RLock())  # else a semaphore, of which the process's end complains
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
