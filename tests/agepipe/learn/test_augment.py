import pytest
import torch
from torch import Tensor

from agepipe.config import AugmentSettings
from agepipe.learn.augment import augment, luma, mix
from agepipe.learn.network import centre

NOTHING = {"flip": 0.0, "shift": False}


def _pictures() -> Tensor:
    torch.manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 6, 6), 40, mode="bilinear")
    return (smooth.permute(0, 2, 3, 1) * 255).to(torch.uint8)


def _augmented(seed: int = 0, **changes: object) -> Tensor:
    pictures = _pictures()
    torch.manual_seed(seed)
    return augment(pictures, 32, AugmentSettings(**{**NOTHING, **changes}))


def test_nothing_turned_on_changes_nothing() -> None:
    assert torch.equal(_augmented(), centre(_pictures(), 32).float())


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": 1.0}, {"shift": True}, {"rotate": 10.0}, {"scale": 0.2}, {"brightness": 0.3}, {"contrast": 0.3},
        {"grey": 1.0}, {"erase": 1.0}, {"blur": 1.0}, {"jpeg": 1.0},
    ],
)  # fmt: skip
def test_each_setting_changes_the_batch(changes: dict[str, object]) -> None:
    levels = _augmented(**changes)
    assert levels.shape == (8, 32, 32, 3)
    assert levels.dtype == torch.float32
    changed = (levels - _augmented()).abs().amax((1, 2, 3)) > 1
    assert changed.float().mean() > 0.7


def test_a_flip_is_the_mirror_image() -> None:
    assert torch.equal(_augmented(flip=1.0), _augmented().flip(2))


def test_half_of_the_pictures_are_flipped_each_by_its_own_draw() -> None:
    torch.manual_seed(0)
    many = _pictures()[:1].expand(400, -1, -1, -1)
    flipped = (augment(many, 32, AugmentSettings(shift=False)) == augment(many, 32, AugmentSettings(**NOTHING))).all(3)
    assert 0.4 < flipped.all(2).all(1).float().mean() < 0.6


def test_crops_are_places_of_the_stored_picture_all_of_them_possible() -> None:
    column = torch.arange(40, dtype=torch.uint8).view(1, 1, 40, 1).expand(500, 40, 40, 3)
    torch.manual_seed(0)
    levels = augment(column, 32, AugmentSettings(flip=0.0))
    lefts = levels[:, 0, 0, 0]
    assert set(lefts.tolist()) == set(range(9))
    assert torch.equal(levels[:, 5, 31, 1], lefts + 31)


def test_an_affine_change_of_nothing_is_the_centre() -> None:
    torch.manual_seed(0)
    levels = augment(_pictures(), 32, AugmentSettings(**{**NOTHING, "rotate": 1e-6}))
    assert torch.allclose(levels, centre(_pictures(), 32).float(), atol=0.05)


def test_grey_keeps_the_luma_and_loses_the_colour() -> None:
    grey = _augmented(grey=1.0)
    assert torch.allclose(grey[..., 0], grey[..., 2])
    assert torch.allclose(luma(grey), luma(_augmented()), atol=0.01)


def test_brightness_moves_the_mean_and_contrast_does_not() -> None:
    before = luma(_augmented()).mean((1, 2, 3))
    assert torch.allclose(luma(_augmented(contrast=0.5)).mean((1, 2, 3)), before, atol=0.05)
    bright = luma(_augmented(brightness=0.5)).mean((1, 2, 3)) / before
    assert bright.min() >= 0.5
    assert bright.max() <= 1.5
    assert bright.std() > 0.1


def test_an_erased_rectangle_covers_some_of_the_picture() -> None:
    erased = (_augmented(erase=1.0) != _augmented()).any(3).float().mean((1, 2))
    assert (erased > 0.01).all()
    assert (erased < 0.25).all()


def test_the_same_seed_gives_the_same_batch() -> None:
    everything = {"flip": 0.5, "shift": True, "rotate": 5.0, "brightness": 0.2, "grey": 0.3, "erase": 0.5}
    assert torch.equal(_augmented(3, **everything), _augmented(3, **everything))
    assert not torch.equal(_augmented(3, **everything), _augmented(4, **everything))


def test_a_blurred_picture_has_the_same_means_and_less_detail() -> None:
    sharp, soft = _augmented(), _augmented(blur=1.0)
    assert torch.allclose(soft.mean((1, 2)), sharp.mean((1, 2)), atol=3)
    assert (soft.diff(dim=1).abs().mean((1, 2, 3)) < sharp.diff(dim=1).abs().mean((1, 2, 3))).all()


def test_a_share_of_the_pictures_is_compressed_and_stays_in_range() -> None:
    torch.manual_seed(0)
    many = torch.randint(0, 256, (300, 32, 32, 3), dtype=torch.uint8)
    levels = augment(many, 32, AugmentSettings(**{**NOTHING, "jpeg": 0.4}))
    changed = (levels - many).abs().amax((1, 2, 3)) > 1
    assert 0.3 < changed.float().mean() < 0.5
    assert torch.equal(levels[~changed], many[~changed].float())
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_a_mixed_picture_is_a_share_of_itself_and_the_rest_of_a_partner_of_about_its_age() -> None:
    torch.manual_seed(3)
    levels, ages = torch.rand(200, 2, 2, 3), torch.arange(200) // 2
    mixed = mix(levels, ages, 2.0)
    assert 0 < mixed.share < 1
    assert torch.allclose(mixed.levels, mixed.share * levels + (1 - mixed.share) * levels[mixed.partner])
    apart = (ages - ages[mixed.partner]).abs()
    assert 0 < apart.float().mean() < 8
    assert apart.max() < 25


def test_no_mixing_leaves_the_pictures_alone() -> None:
    levels = torch.rand(4, 2, 2, 3)
    mixed = mix(levels, torch.arange(4), 0.0)
    assert mixed.levels is levels
    assert mixed.share == 1.0
