"""JPEG-like compression of a whole batch on its device: what a poor camera or a messenger leaves of a photograph.

As baseline JPEG (ITU-T T.81) does it, but for the lossless coding at the end, which changes no pixel: luma and chroma,
chroma at half the resolution, blocks of 8 × 8, their cosine transform, and coefficients rounded to steps that grow as
the quality falls.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""Steps of the luma coefficients at quality 50 (ITU-T T.81, table K.1)."""
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8),) * 4,
)  # fmt: skip
"""Steps of the chroma coefficients at quality 50 (table K.2)."""
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""RGB to luma and the two chroma planes, centred on 0 (JFIF 1.02)."""
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
"""The way back."""


def compress(levels: Tensor, quality: Tensor) -> Tensor:
    """What is left of pictures after compression.

    Args:
        levels: float32 `(n, h, w, 3)` RGB, 0 to 255.
        quality: of each picture, `(n,)`, from 1 to 100, as libjpeg counts it.

    Returns:
        As `levels`, 0 to 255.
    """
    height, width = levels.shape[1:3]
    planes = (levels @ levels.new_tensor(TO_YCC).T).permute(0, 3, 1, 2)
    padding = (0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK))
    planes = functional.pad(planes, padding, mode="replicate")
    luma = _rounded(planes[:, :1] - 128, _steps(LUMA_STEPS, quality)) + 128
    chroma = _rounded(functional.avg_pool2d(planes[:, 1:], 2), _steps(CHROMA_STEPS, quality))
    chroma = functional.interpolate(chroma, scale_factor=2.0, mode="bilinear")
    back = torch.cat([luma, chroma], 1)[:, :, :height, :width].permute(0, 2, 3, 1)
    return (back @ levels.new_tensor(TO_RGB).T).clamp(0, 255)


def _steps(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """The steps of each picture at its quality, `(n, 1, 1, 8, 1, 8)`, by libjpeg's rule (`jpeg_quality_scaling`)."""
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1)
    steps = ((quality.new_tensor(table) * percent + 50) / 100).floor().clamp(1, 255)
    return steps.view(-1, 1, 1, BLOCK, 1, BLOCK)


def _rounded(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes `(n, c, h, w)` with the coefficients of each block rounded to whole steps."""
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    cosines = _cosines().to(planes)
    coefficients = torch.einsum("ui,ncyixj,vj->ncyuxv", cosines, blocks, cosines)
    kept = (coefficients / steps).round() * steps
    return torch.einsum("ui,ncyuxv,vj->ncyixj", cosines, kept, cosines).reshape(planes.shape)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values (DCT-II), float32 `(8, 8)`, frequencies down."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos(math.pi * (2 * place[None] + 1) * place[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves.float()
