"""Augmentation of a batch, on its device and for all pictures at once; it is applied in training only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
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
"""Least and largest area of an erased rectangle, as a share of the picture."""

BLUR_SCALE = (0.3, 0.8)
"""Least and largest scale to which a picture is shrunk to blur it."""

JPEG_QUALITY = (10.0, 75.0)
"""Least and largest JPEG quality: from that of a messenger to the usual one of a camera."""

MIX_YEARS = 5.0
"""Standard deviation of the difference in age between a picture and the one it is mixed with."""


@dataclass(frozen=True)
class Part:
    """The pictures of a batch that one of several processes augments.

    Random numbers are drawn for the whole batch and used for the part, so that every process draws the same ones.
    """

    count: int
    """Pictures in the whole batch."""
    rows: slice
    """Rows of the part."""
    mean: Callable[[Tensor], Tensor]
    """Returns the mean over the pictures of the whole batch, given the mean over those of the part."""

    @classmethod
    def whole(cls, count: int) -> "Part":
        """All pictures of the batch."""
        return cls(count, slice(None), lambda mean: mean)

    def uniform(self, device: torch.device, *shape: int) -> Tensor:
        """Uniform random numbers from 0 to 1, float32 `(*shape, n)`, where `n` are the pictures of the part."""
        return torch.rand(*shape, self.count, device=device)[..., self.rows]

    def symmetric(self, device: torch.device) -> Tensor:
        """Uniform random numbers from -1 to 1, float32 `(n,)`."""
        return self.uniform(device) * 2 - 1

    def integers(self, device: torch.device, below: int) -> Tensor:
        """Random integers from 0, int64 `(n,)`."""
        return torch.randint(below, (self.count,), device=device)[self.rows]

    def mask(self, device: torch.device, probability: float) -> Tensor:
        """Which pictures to change, bool `(n, 1, 1, 1)`."""
        return (self.uniform(device) < probability).view(-1, 1, 1, 1)


def augment(images: Tensor, size: int, settings: AugmentSettings, part: Part | None = None) -> Tensor:
    """Augment pictures and crop them to the size of the network's input.

    Random numbers come from torch's global random state of the device.

    Args:
        images: stored pictures, uint8 RGB `(n, s, s, 3)`.
        size: side of the result, px.
        settings: which transforms to apply, with their ranges and probabilities.
        part: the part of the batch that the pictures are; None if they are the whole batch.

    Returns:
        Levels, float32 `(n, size, size, 3)`, about 0 to 255.
    """
    part, device = part or Part.whole(len(images)), images.device
    levels = _crop_and_warp(images, size, settings, part)
    if settings.flip > 0:
        levels = torch.where(part.mask(device, settings.flip), levels.flip(2), levels)
    levels = levels.float()  # cropping and flipping uint8 is four times as fast as float32
    if settings.brightness > 0 or settings.contrast > 0:
        levels = _expose(levels, settings.brightness, settings.contrast, part)
    if settings.grey > 0:
        levels = torch.where(part.mask(device, settings.grey), luma(levels), levels)
    if settings.blur > 0:
        levels = torch.where(part.mask(device, settings.blur), _blurred(levels), levels)
    if settings.jpeg > 0:
        low, high = JPEG_QUALITY
        quality = low + (high - low) * part.uniform(device)
        levels = torch.where(part.mask(device, settings.jpeg), compress(levels, quality), levels)
    if settings.erase > 0:
        levels = torch.where(_rectangles(levels, settings.erase, part), part.mean(levels.mean((0, 1, 2))), levels)
    return levels


class Mixed(NamedTuple):
    """A batch of which each picture was mixed with another one, its partner."""

    levels: Tensor
    """Mixed pictures, float32 `(n, h, w, 3)`."""
    partner: Tensor
    """Index of each picture's partner in the batch, int64 `(n,)`."""
    share: float
    """Weight of the pictures in the mixture; their partners have the rest."""


def mix(levels: Tensor, ages: Tensor, alpha: float) -> Mixed:
    """Mix each picture with one of about the same age (C-Mixup, Yao et al. 2022).

    The weight of the mixture is sampled from Beta(alpha, alpha), once a batch. The probability of a partner is a normal
    density of the difference in age.

    Args:
        levels: float32 `(n, h, w, 3)`.
        ages: years, int64 `(n,)`.
        alpha: parameter of the beta distribution; 0 mixes nothing.
    """
    if alpha == 0:
        return Mixed(levels, torch.arange(len(levels), device=levels.device), 1.0)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    difference = (ages[:, None] - ages[None]).float()
    partner = torch.multinomial(torch.exp(-(difference**2) / (2 * MIX_YEARS**2)), 1).squeeze(1)
    return Mixed(share * levels + (1 - share) * levels[partner], partner, share)


def luma(levels: Tensor) -> Tensor:
    """Luma of RGB, `(n, h, w, 3)` to `(n, h, w, 1)`."""
    return (levels * levels.new_tensor(LUMA)).sum(3, keepdim=True)


def _crop_and_warp(images: Tensor, size: int, settings: AugmentSettings, part: Part) -> Tensor:
    """The network's input out of each picture, `(n, size, size, 3)`; uint8 if it was only cropped, else float32."""
    if settings.rotate > 0 or settings.scale > 0:
        return _affine(images, size, settings, part)
    if settings.shift:
        return _random_crop(images, size, part)
    return centre(images, size)


def _random_crop(images: Tensor, size: int, part: Part) -> Tensor:
    count, stored = images.shape[:2]
    room = stored - size + 1
    top, left = (part.integers(images.device, room) for _ in range(2))
    windows = images.unfold(1, size, 1).unfold(2, size, 1)  # a view: (n, room, room, 3, size, size)
    return windows[torch.arange(count, device=images.device), top, left].permute(0, 2, 3, 1)


def _affine(images: Tensor, size: int, settings: AugmentSettings, part: Part) -> Tensor:
    """Rotate, scale and shift by one bilinear interpolation; beyond its border the picture is mirrored."""
    count, stored = images.shape[:2]
    angle = part.symmetric(images.device) * math.radians(settings.rotate)
    zoom = (size / stored) * (1 + part.symmetric(images.device) * settings.scale)
    room = (stored - size) / stored if settings.shift else 0.0
    right, down = (part.symmetric(images.device) * room for _ in range(2))
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.stack([torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)], 1)
    grid = functional.affine_grid(matrix, [count, 3, size, size], align_corners=False)
    planes = images.permute(0, 3, 1, 2).float()
    return functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False).permute(0, 2, 3, 1)


def _expose(levels: Tensor, brightness: float, contrast: float, part: Part) -> Tensor:
    """Scale the levels of each picture (brightness), and their differences from its mean luma (contrast)."""
    light = (1 + part.symmetric(levels.device) * brightness).view(-1, 1, 1, 1)
    spread = (1 + part.symmetric(levels.device) * contrast).view(-1, 1, 1, 1)
    middle = luma(levels.mean((1, 2), keepdim=True))
    return levels * (light * spread) + middle * light * (1 - spread)


def _blurred(levels: Tensor) -> Tensor:
    """Shrink and enlarge all pictures by a scale that is sampled once a batch."""
    size = levels.shape[1]
    small = max(2, round(size * float(torch.empty(()).uniform_(*BLUR_SCALE))))
    planes = functional.interpolate(levels.permute(0, 3, 1, 2), (small, small), mode="area")
    return functional.interpolate(planes, (size, size), mode="bilinear").permute(0, 2, 3, 1)


def _rectangles(levels: Tensor, probability: float, part: Part) -> Tensor:
    """Mask of the pixels to erase, bool `(n, h, w, 1)`: at most one rectangle a picture, aspect ratio 1:2 to 2:1."""
    height, width = levels.shape[1:3]
    uniform = part.uniform(levels.device, 5)
    area = ERASED_AREA[0] + uniform[0] * (ERASED_AREA[1] - ERASED_AREA[0])
    aspect = 2 ** (uniform[1] - 0.5)
    high, wide = area.sqrt() * aspect * height, area.sqrt() / aspect * width
    top, left = uniform[2] * (height - high), uniform[3] * (width - wide)
    rows = torch.arange(height, device=levels.device)
    columns = torch.arange(width, device=levels.device)
    down = (rows >= top[:, None]) & (rows < (top + high)[:, None])
    across = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    chosen = uniform[4] < probability
    return (down[:, :, None] & across[:, None, :] & chosen[:, None, None]).unsqueeze(3)
