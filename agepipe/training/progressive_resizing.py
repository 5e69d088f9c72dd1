"""A network sees small pictures first and larger ones later: most epochs are then cheaper, and the last decide.

A small picture shows the same part of the face as a large one, coarser. So the stored pictures are shrunk, and
whatever follows crops, turns and changes them as ever. Validation and what is exported always have `learn.size`.
"""

from torch import Tensor
from torch.nn import functional

from agepipe.config.stages import LearnSettings


def side_of(learn: LearnSettings, epoch: int) -> int:
    """The side of the network's input in an epoch of the training, px.

    The epochs are shared out evenly; those that are left over go to the larger sizes.

    Args:
        learn: `sizes`, `size` and `epochs`, which are all of the schedule, wherever the training pauses.
        epoch: counts from 1.
    """
    sizes = learn.sizes or (learn.size,)
    return sizes[(epoch * len(sizes) - 1) // learn.epochs]


def epochs_below(learn: LearnSettings) -> int:
    """How many epochs the training has before it reaches `learn.size`; patience runs from there."""
    return sum(side_of(learn, epoch) < learn.size for epoch in range(1, learn.epochs + 1))


def shrunk(images: Tensor, size: int, side: int) -> Tensor:
    """Stored pictures as small as they must be for a crop of `side` to show what one of `size` does.

    Args:
        images: uint8 `(n, s, s, 3)`.
        size: side of the crop at full size, px.
        side: side of the crop that is wanted, px; at most `size`.

    Returns:
        uint8 `(n, s', s', 3)`, where `s'` is `s * side / size`, rounded; the pictures themselves where that is `s`.
    """
    stored = images.shape[1]
    small = round(stored * side / size)
    if small == stored:
        return images
    planes = images.permute(0, 3, 1, 2)
    # measured on one core: bytes are shrunk 17 times as fast as floats; no GPU shrinks bytes
    planes = planes if images.device.type == "cpu" else planes.float()
    planes = functional.interpolate(planes, (small, small), mode="bilinear", antialias=True)
    return planes.round().byte().permute(0, 2, 3, 1)
