"""The residual network with which dlib recognises faces, for its trained weights or for random ones.

It was trained on three million photographs of 7,485 people to tell people apart, and no age was used:
https://github.com/davisking/dlib-models (`dlib_face_recognition_resnet_model_v1`, in the public domain). Its last stage
is left out, since it leaves a single position of pictures as small as those here. The batch norm that followed each
convolution in training is a scale and a shift in dlib's file, and part of the convolution here. From random weights the
network needs batch norm again.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agepipe.core.errors import ModelError
from agepipe.training.job import Channels

STEM = 32
"""Channels of the first convolution."""
STAGES = ((32, 3), (64, 4), (128, 3), (256, 3))
"""Channels and blocks of each stage; all stages but the first begin with a block that halves the size."""
MEAN: Channels = (122.782 / 255, 117.001 / 255, 104.298 / 255)
"""What dlib subtracts from levels in [0, 1]."""
STD: Channels = (0.5, 0.5, 0.5)
"""By what levels are divided here; dlib divides them by 256 / 255, and the weights of the stem hold the ratio."""


class FaceResNet(nn.Module):
    """Map normalised pictures, float32 `(n, 3, s, s)`, to 1,000 logits, which a head replaces."""

    def __init__(self, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 7, stride=2, padding=3)
        blocks, before = [], STEM
        for channels, count in STAGES:
            for index in range(count):
                blocks.append(Block(before, channels, halves=index == 0 and channels > STEM))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, 1000)
        if batch_norm:
            self._normalise()

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the logits, `(n, 1000)`."""
        found = functional.relu(self.stem(pictures), inplace=True)
        found = self.blocks(functional.max_pool2d(found, 3, stride=2, padding=1))
        logits: Tensor = self.fc(found.mean((2, 3)))
        return logits

    def _normalise(self) -> None:
        """Follow each convolution by batch norm; blocks begin as their shortcuts (Goyal et al. 2017, section 5.1)."""
        for name, convolution in list(self.named_modules()):
            if isinstance(convolution, nn.Conv2d):
                norm = nn.BatchNorm2d(convolution.out_channels)
                if name.endswith("conv2"):
                    nn.init.zeros_(norm.weight)
                convolution.bias = None
                self.set_submodule(name, nn.Sequential(convolution, norm))

    def convolutions(self) -> list[nn.Conv2d]:
        """All convolutions, from the input to the output."""
        return [part for part in self.modules() if isinstance(part, nn.Conv2d)]


class Block(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool) -> None:
        super().__init__()
        self.halves, self.added = halves, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2 if halves else 1, padding=0 if halves else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, before: Tensor) -> Tensor:
        """Compute `(n, outputs, s, s)` from `(n, inputs, s, s)`; a block that halves returns half the size."""
        # dlib does not pad where it halves; padding on one side keeps positions aligned with the averages below
        found = functional.pad(before, (0, 1, 0, 1)) if self.halves else before
        found = self.conv2(functional.relu(self.conv1(found), inplace=True))
        if self.halves:
            before = functional.avg_pool2d(before, 2)
            before = functional.pad(before, (0, 0, 0, 0, 0, self.added))
        return functional.relu(before + found)


def fill(network: FaceResNet, path: Path) -> None:
    """Load the weights of dlib's file, in place; the linear layer at the end keeps its own.

    Raises:
        ModelError: the file does not contain this network.
    """
    data, at = path.read_bytes(), 0
    try:
        for convolution in network.convolutions():
            weights, at = _tensor(data, b"con_4", at)
            scales, at = _tensor(data, b"affine_", at)
            _set(convolution, weights, scales)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"learn.weights: {path} does not hold this network; install its package again.") from error
    with torch.no_grad():
        network.stem.weight.mul_(STD[0] * 255 / 256)


def _set(convolution: nn.Conv2d, weights: Tensor, scales: Tensor) -> None:
    outputs = convolution.out_channels
    scale, shift = scales.split(outputs)
    with torch.no_grad():
        kernels = weights[:-outputs].view_as(convolution.weight)
        convolution.weight.copy_(kernels * scale[:, None, None, None])
        assert convolution.bias is not None
        convolution.bias.copy_(weights[-outputs:] * scale + shift)


def _tensor(data: bytes, layer: bytes, start: int) -> tuple[Tensor, int]:
    """The parameters of the next layer of a type, float32 `(n,)`, and where they end in the file.

    After the layer's type, the file has a version, four sizes and the values; see `serialize` in dlib's `tensor.h`.
    """
    at = data.index(layer, start) + len(layer)
    _, at = _integer(data, at)
    count = 1
    for _ in range(4):
        size, at = _integer(data, at)
        count *= size
    return torch.from_numpy(np.frombuffer(data, "<f4", count, at).copy()), at + 4 * count


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """An integer of dlib's format, the number of its bytes first, and where it ends in the file."""
    end = at + 1 + data[at]
    return int.from_bytes(data[at + 1 : end], "little"), end
