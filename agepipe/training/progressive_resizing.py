"""Progressive resizing: train on small pictures first and on larger ones later, so that most epochs are faster.

The stored pictures are shrunk before augmentation, so a small picture shows the same part of the face at a lower
resolution. Validation and the exported network always use `learn.size`.
"""

from torch import Tensor
from torch.nn import functional

from agepipe.config.stages import LearnSettings


def side_of(learn: LearnSettings, epoch: int) -> int:
    """The side of the network's input in an epoch, px.

    All sizes get the same number of epochs; a remainder goes to the larger ones.

    Args:
        learn: `sizes`, `size` and `epochs`.
        epoch: number of the epoch, from 1.
    """
    sizes = learn.sizes or (learn.size,)
    return sizes[(epoch * len(sizes) - 1) // learn.epochs]


def epochs_below(learn: LearnSettings) -> int:
    """Number of epochs before the first of `learn.size`; early stopping counts from there."""
    return sum(side_of(learn, epoch) < learn.size for epoch in range(1, learn.epochs + 1))


def shrunk(images: Tensor, size: int, side: int) -> Tensor:
    """Shrink stored pictures so that a crop of `side` shows the same part of the face as a crop of `size` did.

    Args:
        images: uint8 `(n, s, s, 3)`.
        size: side of the crop from the stored pictures, px.
        side: side of the crop from the result, px; at most `size`.

    Returns:
        uint8 `(n, s', s', 3)`, where `s'` is `s * side / size`, rounded; `images` itself if that is `s`.
    """
    stored = images.shape[1]
    small = round(stored * side / size)
    if small == stored:
        return images
    planes = images.permute(0, 3, 1, 2)
    # a CPU shrinks uint8 17 times as fast as float32 (measured on one core); torch cannot shrink uint8 on a GPU
    planes = planes if images.device.type == "cpu" else planes.float()
    planes = functional.interpolate(planes, (small, small), mode="bilinear", antialias=True)
    return planes.round().byte().permute(0, 2, 3, 1)
