"""What training changes in a batch, on the device and for all its pictures at once; never outside training."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from agepipe.config.stages import AugmentSettings
from agepipe.training.jpeg import compress
from agepipe.training.network import centre

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601)."""

ERASED_AREA = (0.02, 0.2)
"""Share of the picture that an erased rectangle covers."""

SOFTENED = (0.3, 0.8)
"""To which share of its side a blurred picture is shrunk."""

JPEG_QUALITY = (10.0, 75.0)
"""Between which qualities a picture is compressed: from what a messenger leaves to a camera's usual one."""

MIX_YEARS = 5.0
"""Standard deviation of the difference in age between a picture and the one it is mixed with."""


def augment(images: Tensor, size: int, settings: AugmentSettings) -> Tensor:
    """Stored pictures, uint8 `(n, s, s, 3)`, to levels float32 `(n, size, size, 3)`, about 0 to 255.

    Draws come from torch's global random state of the device.
    """
    levels = _place(images, size, settings)
    if settings.flip > 0:
        levels = torch.where(_chance(levels, settings.flip), levels.flip(2), levels)
    levels = levels.float()  # not before: bytes are cropped and mirrored four times as fast
    if settings.brightness > 0 or settings.contrast > 0:
        levels = _expose(levels, settings.brightness, settings.contrast)
    if settings.grey > 0:
        levels = torch.where(_chance(levels, settings.grey), luma(levels), levels)
    if settings.blur > 0:
        levels = torch.where(_chance(levels, settings.blur), _softened(levels), levels)
    if settings.jpeg > 0:
        low, high = JPEG_QUALITY
        quality = low + (high - low) * torch.rand(len(levels), device=levels.device)
        levels = torch.where(_chance(levels, settings.jpeg), compress(levels, quality), levels)
    if settings.erase > 0:
        levels = torch.where(_rectangles(levels, settings.erase), levels.mean((0, 1, 2)), levels)
    return levels


class Mixed(NamedTuple):
    """A batch whose pictures were each mixed with a partner."""

    levels: Tensor
    """As those of the batch."""
    partner: Tensor
    """Place of each picture's partner in the batch, int64 `(n,)`."""
    share: float
    """Of the pictures themselves in the mixture; the rest is their partners'."""


def mix(levels: Tensor, ages: Tensor, alpha: float) -> Mixed:
    """Mix each picture with one of about the same age, by a share drawn once a batch from Beta(alpha, alpha).

    Partners are drawn with a probability that falls with the distance in age as a normal density (C-Mixup, Yao et
    al. 2022).

    Args:
        levels: float32 `(n, h, w, 3)`.
        ages: years, int64 `(n,)`.
        alpha: parameter of the beta distribution; 0 leaves the pictures as they are.
    """
    if alpha == 0:
        return Mixed(levels, torch.arange(len(levels), device=levels.device), 1.0)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    apart = (ages[:, None] - ages[None]).float()
    partner = torch.multinomial(torch.exp(-(apart**2) / (2 * MIX_YEARS**2)), 1).squeeze(1)
    return Mixed(share * levels + (1 - share) * levels[partner], partner, share)


def luma(levels: Tensor) -> Tensor:
    """Luma of RGB, `(n, h, w, 3)` to `(n, h, w, 1)`."""
    return (levels * levels.new_tensor(LUMA)).sum(3, keepdim=True)


def _place(images: Tensor, size: int, settings: AugmentSettings) -> Tensor:
    """The part of each picture that the network gets; bytes unless they had to be interpolated."""
    if settings.rotate > 0 or settings.scale > 0:
        return _affine(images, size, settings)
    if settings.shift:
        return _crop(images, size)
    return centre(images, size)


def _crop(images: Tensor, size: int) -> Tensor:
    count, stored = images.shape[:2]
    room = stored - size + 1
    top, left = (torch.randint(room, (count,), device=images.device) for _ in range(2))
    windows = images.unfold(1, size, 1).unfold(2, size, 1)  # a view: (n, room, room, 3, size, size)
    return windows[torch.arange(count, device=images.device), top, left].permute(0, 2, 3, 1)


def _affine(images: Tensor, size: int, settings: AugmentSettings) -> Tensor:
    """Rotation, scale and shift in one bilinear pass; beyond the edge the picture is mirrored."""
    count, stored = images.shape[:2]
    angle = _spread(images, count) * math.radians(settings.rotate)
    zoom = (size / stored) * (1 + _spread(images, count) * settings.scale)
    room = (stored - size) / stored if settings.shift else 0.0
    right, down = (_spread(images, count) * room for _ in range(2))
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.stack([torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)], 1)
    grid = functional.affine_grid(matrix, [count, 3, size, size], align_corners=False)
    planes = images.permute(0, 3, 1, 2).float()
    return functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False).permute(0, 2, 3, 1)


def _expose(levels: Tensor, brightness: float, contrast: float) -> Tensor:
    """Scale each picture's levels (brightness), and their distance from its mean luma (contrast)."""
    count = len(levels)
    light = (1 + _spread(levels, count) * brightness).view(-1, 1, 1, 1)
    spread = (1 + _spread(levels, count) * contrast).view(-1, 1, 1, 1)
    middle = luma(levels.mean((1, 2), keepdim=True))
    return levels * (light * spread) + middle * light * (1 - spread)


def _softened(levels: Tensor) -> Tensor:
    """All pictures shrunk and enlarged again, by a factor that is drawn once a batch."""
    size = levels.shape[1]
    small = max(2, round(size * float(torch.empty(()).uniform_(*SOFTENED))))
    planes = functional.interpolate(levels.permute(0, 3, 1, 2), (small, small), mode="area")
    return functional.interpolate(planes, (size, size), mode="bilinear").permute(0, 2, 3, 1)


def _rectangles(levels: Tensor, probability: float) -> Tensor:
    """Where to erase, bool `(n, h, w, 1)`: at most one rectangle a picture, with sides between 1:2 and 2:1."""
    count, height, width = levels.shape[:3]
    draw = torch.rand(5, count, device=levels.device)
    area = ERASED_AREA[0] + draw[0] * (ERASED_AREA[1] - ERASED_AREA[0])
    aspect = 2 ** (draw[1] - 0.5)
    high, wide = area.sqrt() * aspect * height, area.sqrt() / aspect * width
    top, left = draw[2] * (height - high), draw[3] * (width - wide)
    rows = torch.arange(height, device=levels.device)
    columns = torch.arange(width, device=levels.device)
    down = (rows >= top[:, None]) & (rows < (top + high)[:, None])
    across = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    chosen = draw[4] < probability
    return (down[:, :, None] & across[:, None, :] & chosen[:, None, None]).unsqueeze(3)


def _chance(levels: Tensor, probability: float) -> Tensor:
    return (torch.rand(len(levels), device=levels.device) < probability).view(-1, 1, 1, 1)


def _spread(like: Tensor, count: int) -> Tensor:
    return torch.rand(count, device=like.device) * 2 - 1
