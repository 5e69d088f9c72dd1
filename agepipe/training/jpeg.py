"""JPEG artefacts for a batch of pictures on its device, to augment with the quality of poor cameras and messengers.

The steps are those of baseline JPEG (ITU-T T.81) without the lossless coding, which changes no pixel: conversion to
luma and chroma, chroma at half the resolution, the cosine transform of blocks of 8 × 8, and quantisation of the
coefficients.
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
"""Quantisation steps of the luma coefficients at quality 50 (ITU-T T.81, table K.1)."""
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8),) * 4,
)  # fmt: skip
"""Quantisation steps of the chroma coefficients at quality 50 (table K.2)."""
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""RGB to luma and the two chroma planes, centred on 0 (JFIF 1.02)."""
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
"""Luma and chroma to RGB."""


def compress(levels: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress pictures.

    Args:
        levels: float32 `(n, h, w, 3)` RGB, 0 to 255.
        quality: libjpeg's quality of each picture, 1 to 100, `(n,)`.

    Returns:
        Float32 `(n, h, w, 3)` RGB, 0 to 255.
    """
    height, width = levels.shape[1:3]
    planes = (levels @ levels.new_tensor(TO_YCC).T).permute(0, 3, 1, 2)
    padding = (0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK))
    planes = functional.pad(planes, padding, mode="replicate")
    luma = _quantised(planes[:, :1] - 128, _steps(LUMA_STEPS, quality)) + 128
    chroma = _quantised(functional.avg_pool2d(planes[:, 1:], 2), _steps(CHROMA_STEPS, quality))
    chroma = functional.interpolate(chroma, scale_factor=2.0, mode="bilinear")
    back = torch.cat([luma, chroma], 1)[:, :, :height, :width].permute(0, 2, 3, 1)
    return (back @ levels.new_tensor(TO_RGB).T).clamp(0, 255)


def _steps(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Quantisation steps of each picture, `(n, 1, 1, 8, 1, 8)`, by libjpeg's `jpeg_quality_scaling`."""
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1)
    steps = ((quality.new_tensor(table) * percent + 50) / 100).floor().clamp(1, 255)
    return steps.view(-1, 1, 1, BLOCK, 1, BLOCK)


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Quantise the coefficients of each block of planes `(n, c, h, w)`."""
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    cosines = _cosines().to(planes)
    coefficients = torch.einsum("ui,ncyixj,vj->ncyuxv", cosines, blocks, cosines)
    quantised = (coefficients / steps).round() * steps
    return torch.einsum("ui,ncyuxv,vj->ncyixj", cosines, quantised, cosines).reshape(planes.shape)


def _cosines() -> Tensor:
    """Matrix of the orthonormal DCT-II of 8 values, float32 `(8, 8)`, a row for each frequency."""
    index = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos(math.pi * (2 * index[None] + 1) * index[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves.float()
