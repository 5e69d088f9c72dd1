"""Read the weights of a network that was trained elsewhere, such as the notebook's, into an `AgeNetwork`.

Only tensors are unpickled. What the file does not contain (class order, ranges, normalisation) is an argument.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ModelError
from agepipe.model.ages import AgeRanges
from agepipe.training.backbones import backbone, head_name, state_of
from agepipe.training.job import Order
from agepipe.training.network import AgeNetwork, Normalise, Readout

HEADS = {
    frozenset({""}): "linear",
    frozenset({"1."}): "linear",
    frozenset({"1.", "2."}): "v1",
    frozenset({"1.", "3."}): "v2",
    frozenset({"0.", "3."}): "v3",
}
"""Names of the linear layers of each kind of head; `""` is torchvision's own single layer."""


def read(
    path: Path, learn: LearnSettings, ranges: AgeRanges, order: Order, mean: Sequence[float], std: Sequence[float]
) -> AgeNetwork:
    """Read a network from a file, and sort its outputs into class order.

    Args:
        path: a state dict of a torchvision classifier with one of the heads of `LearnSettings.head`.
        learn: names the network and its input size; the head is recognised by its layers.
        ranges: the age ranges of the outputs.
        order: `age` if the outputs are sorted by age, `text` if they are sorted by folder name as text (0, 1, 10,
            11, ... 2), as `torchvision.datasets.ImageFolder` sorts folders named 0 to 13. The folder of a single year
            is named by the year, that of a range by the number of the range.
        mean: mean of the training's normalisation, three channels in [0, 1].
        std: standard deviation of the training's normalisation, three channels in [0, 1].

    Raises:
        ModelError: the file cannot be read, or does not contain this network with one output for each range.
    """
    given, name = state_of(path), head_name(learn)
    layers = {
        key.removeprefix(name + ".").removesuffix("weight")
        for key in given
        if key.startswith(name + ".") and key.endswith("weight")
    }
    if frozenset(layers) not in HEADS:
        raise ModelError(
            f"{path}: its head '{name}' has linear layers at {sorted(layers) or 'no place'}, which is none of linear, "
            f"v1, v2 and v3; name the network that it is with --network (now {learn.network})."
        )
    kind = HEADS[frozenset(layers)]
    if layers == {""}:
        given = {re.sub(rf"^{re.escape(name)}\.", f"{name}.1.", key): value for key, value in given.items()}
    last = f"{name}.{max(layers) or '1.'}"
    _check_outputs(path, given.get(last + "bias"), ranges)
    body = backbone(learn.model_copy(update={"head": kind, "weights": "none"}), len(ranges))
    _load(
        path, body, {**given, **_ordered({key: given[last + key] for key in ("weight", "bias")}, last, order, ranges)}
    )
    return AgeNetwork(body, Normalise(mean, std), Readout(ranges, by_year=False), learn.size, mirror=False).eval()


def _check_outputs(path: Path, bias: Tensor | None, ranges: AgeRanges) -> None:
    outputs = 0 if bias is None else len(bias)
    if outputs != len(ranges):
        raise ModelError(
            f"{path}: the network has {outputs} outputs, but there are {len(ranges)} ranges; give its own --ranges."
        )


def _ordered(layer: dict[str, Tensor], last: str, order: Order, ranges: AgeRanges) -> dict[str, Tensor]:
    """Sort the rows of the last layer by class; keys are the names of its tensors in the network."""
    single = all(one.high in (one.low, None) for one in ranges.ranges)
    classes = range(len(ranges))
    folders = [str(one.low) if single else str(at) for at, one in enumerate(ranges.ranges)]
    class_of_output = sorted(classes, key=lambda at: folders[at]) if order == "text" else classes
    output_of_class = torch.tensor(list(class_of_output)).argsort()
    return {last + key: value[output_of_class] for key, value in layer.items()}


def _load(path: Path, body: nn.Module, given: dict[str, Tensor]) -> None:
    try:
        body.load_state_dict(given)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t", 1)[-1].split())[:200]
        raise ModelError(f"{path}: it does not hold the network that --network names ({reason}).") from error
