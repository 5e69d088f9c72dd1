"""Networks that were trained elsewhere, such as the notebook's: a file of weights becomes an `AgeNetwork`.

Only tensors are unpickled. Everything that the file does not say (class order, ranges, normalisation) is asked for.
"""

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
"""Where the linear layers of a head lie in it, and which head that is; `""` is torchvision's own single layer."""


def read(
    path: Path, learn: LearnSettings, ranges: AgeRanges, order: Order, mean: Sequence[float], std: Sequence[float]
) -> AgeNetwork:
    """The network in a file, its outputs in class order.

    Args:
        path: a state dict of a torchvision classifier with one of the heads of `LearnSettings.head`.
        learn: names the network and the side of its input; its head is found out.
        ranges: what the outputs stand for.
        order: `age` when they stand youngest first, `text` when they stand as the names of folders sort as text
            (0, 1, 10, 11, ... 2): so `torchvision.datasets.ImageFolder` numbers folders named 0 to 13. Folders of
            single years have the year as their name, those of ranges the number of the range.
        mean: by which the training normalised, three channels in [0, 1].
        std: the same.

    Raises:
        ModelError: the file cannot be read, or does not hold this network with as many outputs as there are ranges.
    """
    given, name = state_of(path), head_name(learn)
    layers = {key.removeprefix(name + ".").removesuffix("weight") for key in given if _in_head(key, name)}
    if frozenset(layers) not in HEADS:
        raise ModelError(
            f"{path}: its head '{name}' has linear layers at {sorted(layers) or 'no place'}, which is none of linear, "
            f"v1, v2 and v3; name the network that it is with --network (now {learn.network})."
        )
    kind = HEADS[frozenset(layers)]
    if layers == {""}:
        given = {_inside(key, name): value for key, value in given.items()}
    last = f"{name}.{max(layers) or '1.'}"
    _check_outputs(path, given.get(last + "bias"), ranges)
    body = backbone(learn.model_copy(update={"head": kind, "weights": "none"}), len(ranges))
    _load(
        path, body, {**given, **_ordered({key: given[last + key] for key in ("weight", "bias")}, last, order, ranges)}
    )
    return AgeNetwork(body, Normalise(mean, std), Readout(ranges, by_year=False), learn.size, mirror=False).eval()


def _in_head(key: str, name: str) -> bool:
    return key.startswith(name + ".") and key.endswith("weight")


def _inside(key: str, name: str) -> str:
    return key.replace(name + ".", name + ".1.") if key.startswith(name + ".") else key


def _check_outputs(path: Path, bias: Tensor | None, ranges: AgeRanges) -> None:
    outputs = 0 if bias is None else len(bias)
    if outputs != len(ranges):
        raise ModelError(
            f"{path}: the network has {outputs} outputs, but there are {len(ranges)} ranges; give its own --ranges."
        )


def _ordered(layer: dict[str, Tensor], last: str, order: Order, ranges: AgeRanges) -> dict[str, Tensor]:
    """The last layer's rows in class order, by the names that they have in the file."""
    single = all(one.high in (one.low, None) for one in ranges.ranges)
    places = range(len(ranges))
    folders = [str(one.low) if single else str(at) for at, one in enumerate(ranges.ranges)]
    stands_for = sorted(places, key=lambda at: folders[at]) if order == "text" else places
    place = torch.tensor(list(stands_for)).argsort()
    return {last + key: value[place] for key, value in layer.items()}


def _load(path: Path, body: nn.Module, given: dict[str, Tensor]) -> None:
    try:
        body.load_state_dict(given)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t", 1)[-1].split())[:200]
        raise ModelError(f"{path}: it does not hold the network that --network names ({reason}).") from error
