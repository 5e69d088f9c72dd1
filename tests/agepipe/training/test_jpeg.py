import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from agepipe.training.jpeg import compress


def _smooth(count: int = 6, side: int = 64) -> Tensor:
    torch.manual_seed(2)
    rough = torch.nn.functional.interpolate(torch.rand(count, 3, 12, 12), side, mode="bilinear")
    return (rough.permute(0, 2, 3, 1) * 255).round()


def _all(quality: float, count: int) -> Tensor:
    return torch.full((count,), quality)


def _opencv(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("quality", [10, 40, 75])
def test_it_is_what_a_real_encoder_leaves(quality: int) -> None:
    pictures = _smooth()
    mine = compress(pictures, _all(quality, len(pictures)))
    real = torch.stack([torch.from_numpy(_opencv(one.numpy().astype(np.uint8), quality)).float() for one in pictures])
    lost = (real - pictures).abs().mean()
    assert (mine - real).abs().mean() < 0.35 * lost
    assert float((mine - pictures).abs().mean()) == pytest.approx(float(lost), rel=0.15)


def test_the_lower_the_quality_the_more_is_lost_each_picture_by_its_own() -> None:
    picture = _smooth(1).expand(4, -1, -1, -1)
    lost = (compress(picture, torch.tensor([90.0, 50.0, 20.0, 5.0])) - picture).abs().mean((1, 2, 3))
    assert lost.tolist() == sorted(lost.tolist())
    assert lost[3] > 3 * lost[0]


@pytest.mark.parametrize("side", [32, 37, 64, 70])
def test_any_side_keeps_its_shape_and_levels_stay_in_range(side: int) -> None:
    torch.manual_seed(0)
    noise = (torch.rand(5, side, side, 3) > 0.5).float() * 255
    levels = compress(noise, torch.tensor([1.0, 10.0, 49.9, 75.0, 100.0]))
    assert levels.shape == noise.shape
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert torch.isfinite(levels).all()


def test_at_full_quality_a_grey_picture_is_hardly_changed() -> None:
    grey = _smooth()[..., :1].expand(-1, -1, -1, 3)
    assert (compress(grey, _all(100.0, len(grey))) - grey).abs().max() < 3
