import pytest
import torch
from torch import Tensor
from torch.nn import functional

from agepipe.config.stages import AugmentSettings
from agepipe.training.augment import Part, augment, luma, mix
from agepipe.training.jpeg import compress
from agepipe.training.network import centre

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


EACH = {
    "flip": 0.5, "shift": True, "rotate": 10.0, "scale": 0.2, "brightness": 0.3, "contrast": 0.3, "grey": 0.5,
    "erase": 0.5, "blur": 0.5, "jpeg": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("changes", [EACH, {"shift": True}, *({name: value} for name, value in EACH.items())])
def test_parts_of_a_batch_are_augmented_as_the_whole_batch_is(changes: dict[str, object]) -> None:
    settings, pictures = AugmentSettings(**{**NOTHING, **changes}), _pictures()
    torch.manual_seed(3)
    whole = augment(pictures, 32, settings)
    after = torch.rand(1)
    means: list[Tensor] = []
    for rows in (slice(0, 3), slice(3, 8)):  # what erasing fills with is a mean over all parts
        torch.manual_seed(3)
        augment(pictures[rows], 32, settings, Part(8, rows, lambda mean: means.append(mean) or mean))
    mean = (3 * means[0] + 5 * means[1]) / 8 if means else torch.zeros(3)
    for rows in (slice(0, 3), slice(3, 8)):
        torch.manual_seed(3)
        part = augment(pictures[rows], 32, settings, Part(8, rows, lambda _: mean))
        torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-3)
        assert torch.equal(torch.rand(1), after), "the same random numbers were drawn"


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


def _ramps(seed: int = 0, **changes: object) -> tuple[Tensor, Tensor, Tensor]:
    """Turn, scale and place of 800 pictures, in degrees, as a share and in px, read off two ramps that cross."""
    ramp = 3 * torch.arange(40) + 60
    picture = torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40), torch.zeros(40, 40)], 2).byte()
    torch.manual_seed(seed)
    levels = augment(picture.expand(800, -1, -1, -1), 32, AugmentSettings(**{**NOTHING, **changes}))
    across, down = (
        (levels[:, 15, 20, 0] - levels[:, 15, 12, 0]) / 24,
        (levels[:, 19, 16, 0] - levels[:, 11, 16, 0]) / 24,
    )
    middle = (levels[:, 15:17, 15:17].mean((1, 2))[:, :2] - 60 - 3 * 19.5) / 3
    return torch.rad2deg(torch.atan2(down, across)), torch.hypot(across, down), middle


def _reaches(values: Tensor, low: float, high: float) -> bool:
    """Whether draws fill a span evenly and do not leave it."""
    room = 0.02 * (high - low)
    even = abs(float(values.mean()) - (low + high) / 2) < 3 * room
    inside = bool((values >= low - room / 4).all() and (values <= high + room / 4).all())
    return even and inside and float(values.min()) < low + room and float(values.max()) > high - room


def test_rotation_scale_and_place_reach_what_was_asked_and_no_more() -> None:
    turn, scale, middle = _ramps(rotate=20.0)
    assert _reaches(turn, -20, 20)
    assert torch.allclose(scale, torch.ones(800), atol=0.01)
    assert torch.allclose(middle, torch.zeros(800, 2), atol=0.02)
    turn, scale, middle = _ramps(scale=0.2)
    assert _reaches(scale, 0.8, 1.2)
    assert turn.abs().max() < 0.01
    _, _, middle = _ramps(scale=1e-6, shift=True)
    assert all(_reaches(one, -4, 4) for one in middle.T)
    assert torch.corrcoef(middle.T)[0, 1].abs() < 0.1


def test_brightness_and_contrast_reach_what_was_asked_and_no_more() -> None:
    halves = torch.full((1, 40, 40, 3), 60, dtype=torch.uint8)
    halves[:, :, 20:] = 100

    def levels(**changes: object) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        many = augment(halves.expand(800, -1, -1, -1), 32, AugmentSettings(**{**NOTHING, **changes}))
        return many.mean((1, 2, 3)) / 80, (many[:, 0, -1, 0] - many[:, 0, 0, 0]) / 40

    mean, apart = levels(brightness=0.3)
    assert _reaches(mean, 0.7, 1.3)
    assert torch.allclose(apart, mean, atol=1e-4)
    mean, apart = levels(contrast=0.3)
    assert _reaches(apart, 0.7, 1.3)
    assert torch.allclose(mean, torch.ones(800), atol=1e-4)


@pytest.mark.parametrize("name", ["flip", "grey", "blur", "jpeg", "erase"])
def test_as_many_pictures_are_changed_as_was_asked(name: str) -> None:
    torch.manual_seed(0)
    many = torch.randint(0, 256, (600, 40, 40, 3), dtype=torch.uint8)
    levels = augment(many, 32, AugmentSettings(**{**NOTHING, name: 0.2}))
    changed = (levels - centre(many, 32)).abs().amax((1, 2, 3)) > 1
    assert changed.float().mean() == pytest.approx(0.2, abs=0.06)  # more than 3 deviations


def test_erased_rectangles_have_the_areas_and_shapes_that_are_documented() -> None:
    torch.manual_seed(0)
    many = torch.randint(0, 256, (400, 96, 96, 3), dtype=torch.uint8)
    levels = augment(many, 96, AugmentSettings(**{**NOTHING, "erase": 1.0}))
    gone = (levels != many).any(3)
    high, wide = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.sum((1, 2)), high * wide)
    share = high * wide / 96**2
    # whole pixels: a side of 13.6 px covers 13 or 14
    assert 0.017 < share.min() < 0.026
    assert 0.19 < share.max() < 0.206
    assert share.mean() == pytest.approx(0.11, abs=0.008)
    assert 0.45 < (high / wide).min() < 0.6
    assert 1.7 < (high / wide).max() < 2.2
    assert torch.allclose(levels[gone], many.float().mean((0, 1, 2)).expand(int(gone.sum()), 3), atol=1e-3)
    left, top = gone.any(1).float().argmax(1), gone.any(2).float().argmax(1)
    assert max(left.min(), top.min()) < 4
    assert 92 < min((left + wide).max(), (top + high).max()) <= 96


def test_blur_shrinks_a_picture_to_between_a_third_and_four_fifths() -> None:
    picture = centre(_pictures(), 32)[:1].permute(0, 3, 1, 2).float()

    def at(side: int) -> Tensor:
        return functional.interpolate(functional.interpolate(picture, (side, side), mode="area"), 32, mode="bilinear")

    known = torch.stack([at(side) for side in range(2, 32)])
    soft = torch.stack([_augmented(seed, blur=1.0)[:1].permute(0, 3, 1, 2) for seed in range(60)])
    apart = (known[:, None] - soft[None]).abs().amax((2, 3, 4, 5))
    assert apart.amin(0).max() < 1e-3
    sides = apart.argmin(0) + 2
    assert sides.min() in (10, 11)
    assert sides.max() in (24, 25, 26)


def test_compression_reaches_from_a_messengers_quality_to_a_cameras() -> None:
    torch.manual_seed(2)
    picture = centre(_pictures(), 32)[:1].float() + 20 * torch.randn(1, 32, 32, 3)
    picture = picture.clamp(0, 255).byte()

    def loss(levels: Tensor) -> Tensor:
        return (levels - picture.float()).square().mean((1, 2, 3))

    levels = augment(picture.expand(400, -1, -1, -1), 32, AugmentSettings(**{**NOTHING, "jpeg": 1.0}))
    poorest, poor, good, best = loss(compress(picture.float().expand(4, -1, -1, -1), torch.tensor([10.0, 13, 72, 75])))
    assert best * 0.99 <= loss(levels).min() < good
    assert poor < loss(levels).max() <= poorest * 1.01


def test_the_same_seed_gives_the_same_batch() -> None:
    everything = {"flip": 0.5, "shift": True, "rotate": 5.0, "brightness": 0.2, "grey": 0.3, "erase": 0.5}
    assert torch.equal(_augmented(3, **everything), _augmented(3, **everything))
    assert not torch.equal(_augmented(3, **everything), _augmented(4, **everything))


def test_a_mixed_picture_is_a_share_of_itself_and_the_rest_of_a_partner_of_about_its_age() -> None:
    torch.manual_seed(3)
    levels, ages = torch.rand(200, 2, 2, 3), torch.arange(200) // 2
    mixed = mix(levels, ages, 2.0)
    assert 0 < mixed.share < 1
    assert torch.allclose(mixed.levels, mixed.share * levels + (1 - mixed.share) * levels[mixed.partner])
    apart = (ages - ages[mixed.partner]).abs()
    assert 0 < apart.float().mean() < 8
    assert apart.max() < 25


def test_partners_are_five_years_off_by_deviation_and_shares_are_those_of_the_beta_distribution() -> None:
    torch.manual_seed(0)
    ages = torch.arange(120).repeat(10)
    mixed = mix(torch.zeros(1200, 1, 1, 1), ages, 1.0)
    inside = (ages >= 20) & (ages < 100)
    apart = (ages[mixed.partner] - ages)[inside].float()
    assert apart.mean().abs() < 0.6
    assert apart.std() == pytest.approx(5.0, abs=0.5)

    def spread(alpha: float) -> float:
        shares = [mix(torch.zeros(2, 1, 1, 1), torch.zeros(2), alpha).share for _ in range(600)]
        assert sum(shares) / 600 == pytest.approx(0.5, abs=0.06)
        return float(torch.tensor(shares).var())

    for alpha in (0.4, 3.0):
        assert spread(alpha) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_no_mixing_leaves_the_pictures_alone() -> None:
    levels = torch.rand(4, 2, 2, 3)
    mixed = mix(levels, torch.arange(4), 0.0)
    assert mixed.levels is levels
    assert mixed.share == 1.0
