from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from agepipe.config.stages import LearnSettings
from agepipe.config.torchvision_models import NETWORKS
from agepipe.core.errors import ConfigError, ModelError, TrainingError
from agepipe.model.ages import AgeRanges
from agepipe.training.backbones import backbone, head, replace_classifier
from agepipe.training.network import AgeNetwork, Normalise, Readout, build, centre, single_years

MEAN, STD = (0.598, 0.458, 0.391), (0.257, 0.229, 0.224)
UTKFACE = AgeRanges.of("utkface")


def _network(seed: int = 0, **changes: object) -> AgeNetwork:
    torch.manual_seed(seed)
    return build(LearnSettings(size=32, **changes), UTKFACE, MEAN, STD).eval()


def _pictures(count: int = 3, size: int = 36) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def test_the_table_of_networks_is_torchvisions() -> None:
    known = [name for name in torchvision.models.list_models(module=torchvision.models) if "squeezenet" not in name]
    assert sorted(NETWORKS) == sorted(known)
    for name, weights in NETWORKS.items():
        assert weights == tuple(item.name for item in torchvision.models.get_model_weights(name)), name


FAMILIES = (
    "resnet50", "vgg11", "vit_b_32", "swin_t", "densenet121", "maxvit_t", "shufflenet_v2_x0_5", "efficientnet_b0",
    "mobilenet_v2", "convnext_tiny", "mnasnet0_5", "alexnet",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_classifier_of_every_family_is_replaced(name: str) -> None:
    with torch.device("meta"):
        body = torchvision.models.get_model(name)
        replaced = replace_classifier(body, "v2", 0.3, 14)
    assert body.get_submodule(replaced)[3].out_features == 14
    sizes = [part.out_features for part in body.modules() if isinstance(part, torch.nn.Linear)]
    assert 1000 not in sizes


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear", ["Dropout", "Linear"]),
        ("v1", ["Dropout", "Linear", "Linear"]),
        ("v2", ["Dropout", "Linear", "ReLU", "Linear"]),
        ("v3", ["Linear", "ReLU", "Dropout", "Linear"]),
    ],
)
def test_heads_are_those_of_the_notebook(kind: str, shape: list[str]) -> None:
    made = head(kind, 2048, 0.4, 14)
    assert [type(part).__name__ for part in made] == shape
    assert made(torch.rand(2, 2048)).shape == (2, 14)
    dropout = next(part for part in made if isinstance(part, torch.nn.Dropout))
    assert dropout.p == (0.5 if kind == "v3" else 0.4)
    assert made[1 if kind != "v3" else 0].out_features == {"linear": 14, "v1": 256, "v2": 256, "v3": 512}[kind]


def test_a_head_cannot_be_put_on_a_network_without_a_linear_classifier() -> None:
    with pytest.raises(ConfigError, match="linear classifier"):
        replace_classifier(torch.nn.Conv2d(3, 3, 3), "linear", 0.0, 14)


def test_an_unknown_network_or_weights_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'resnet5O' is not known; the nearest is 'resnet50'"):
        LearnSettings(network="resnet5O")
    with pytest.raises(ConfigError, match="nearest is 'IMAGENET1K_V1'"):
        LearnSettings(network="resnet18", weights="IMAGENET1K_V3")
    with pytest.raises(ConfigError, match="no file"):
        backbone(LearnSettings(network="resnet18", weights="weights/face.pt"), 14)


@pytest.mark.parametrize("target", ["ranges", "years"])
@pytest.mark.parametrize("mirror", [False, True])
def test_answers_are_probabilities_of_the_ranges_and_years(target: str, mirror: bool) -> None:
    with torch.inference_mode():
        probabilities, years = _network(target=target, mirror=mirror)(_pictures())
    assert probabilities.shape == (3, 14)
    assert torch.allclose(probabilities.sum(1), torch.ones(3), atol=1e-5)
    assert ((years > 0) & (years < 117)).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_a_mirrored_answer_is_the_mean_over_left_and_right_and_nothing_else(mirror: bool) -> None:
    """A body that looks at each pixel: a picture turned upside down, or one counted twice, answers differently."""
    images = _pictures(3, 36)
    readout = Readout(UTKFACE, by_year=False)
    weights = np.random.default_rng(4).normal(0, 0.02, (3 * 32 * 32, readout.outputs))
    body = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), readout.outputs, bias=False))
    with torch.no_grad():
        body[1].weight.copy_(torch.from_numpy(weights.T))
    normalise = Normalise(MEAN, STD)
    with torch.inference_mode():
        found = AgeNetwork(body, normalise, readout, 32, mirror)(images)[0].numpy()
    pixels = (images.numpy()[:, 2:34, 2:34] / 255 - MEAN) / STD

    def shares(levels: NDArray[np.float64]) -> NDArray[np.float64]:
        raised = np.exp(levels.transpose(0, 3, 1, 2).reshape(3, -1) @ weights)
        return raised / raised.sum(1, keepdims=True)

    straight, turned = shares(pixels), shares(pixels[:, :, ::-1])
    assert np.abs(straight - turned).max() > 0.1
    assert np.allclose(found, (straight + turned) / 2 if mirror else straight, atol=1e-4)


def test_a_temperature_is_applied_to_the_ranges_and_not_to_the_years() -> None:
    distribution = torch.rand(4, 116, generator=torch.Generator().manual_seed(0)).softmax(1)
    readout = Readout(UTKFACE, by_year=True)
    shares, years = readout(distribution)
    readout.temperature = 2.5
    softened, same = readout(distribution)
    raised = shares.numpy() ** (1 / 2.5)
    assert np.allclose(softened.numpy(), raised / raised.sum(1, keepdims=True), atol=1e-6)
    assert torch.equal(years, same)


def test_the_network_sees_the_middle_of_the_stored_picture_at_unit_scale() -> None:
    images = _pictures(2, 40)
    seen = Normalise(MEAN, STD)(centre(images, 32))
    expected = torchvision.transforms.functional.normalize(
        images.permute(0, 3, 1, 2)[:, :, 4:36, 4:36].double() / 255, MEAN, STD
    )
    assert torch.allclose(seen.double(), expected, atol=1e-5)


@pytest.mark.parametrize(("mean", "std"), [((152.0, 117.0, 100.0), STD), (MEAN, (65.0, 58.0, 57.0)), (MEAN, (0.0,) * 3),
                                           ((-0.1, 0.4, 0.4), STD), ((float("nan"),) * 3, STD)])  # fmt: skip
def test_statistics_outside_zero_to_one_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(TrainingError, match="between 0 and 1"):
        Normalise(mean, std)


def test_a_store_smaller_than_the_network_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"learn\.size: 32 px, but the stored pictures have 24"):
        centre(_pictures(2, 24), 32)


def test_years_are_summed_into_their_own_ranges_in_class_order() -> None:
    readout = Readout(UTKFACE, by_year=True)
    ages = single_years(UTKFACE)
    probabilities, _ = readout(torch.eye(len(ages)))
    # as text '11-14' sorts before '3-5': any sorting of names would break this
    assert probabilities.argmax(1).tolist() == UTKFACE.classes(ages.numpy()).tolist()
    assert (ages[0], ages[-1]) == (1, 116)


def test_the_median_is_interpolated_inside_its_year() -> None:
    readout = Readout(UTKFACE, by_year=True)
    distribution = torch.zeros(4, 116)
    distribution[0, 29] = 1.0  # all on 30
    distribution[1, [29, 30]] = 0.5  # halfway between 30 and 31
    distribution[2, [9, 10, 99]] = torch.tensor([0.25, 0.5, 0.25])  # the far quarter does not pull
    distribution[3, 0] = 1.0
    assert readout(distribution)[1].tolist() == pytest.approx([30.0, 30.5, 11.0, 1.0], abs=1e-4)


def test_ranges_that_leave_years_out_have_only_their_own_years() -> None:
    ranges = AgeRanges.of(("18-29", "30-49"))
    readout = Readout(ranges, by_year=True)
    assert readout.outputs == 32
    assert torch.allclose(readout(torch.full((1, 32), 1 / 32))[0].sum(), torch.tensor(1.0))


def test_years_of_ranges_are_the_mean_of_the_mid_ages() -> None:
    readout = Readout(UTKFACE, by_year=False)
    assert readout(torch.eye(14))[1].tolist() == pytest.approx(UTKFACE.mid_ages.tolist())
    shares = torch.rand(5, 14, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert readout(shares)[1].tolist() == pytest.approx((shares.double().numpy() @ UTKFACE.mid_ages).tolist(), rel=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5", "resnet18"])
def test_what_judges_follows_what_was_trained_within_a_few_batches(name: str) -> None:
    """With mobilenet_v3's own momentum of batch norm an epoch of a laptop's training left it near its start."""
    body = backbone(LearnSettings(network=name, size=64), 14).train()
    norm = next(part for part in body.modules() if isinstance(part, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].mean((0, 2, 3))))
    pictures = 3 + torch.rand(8, 3, 64, 64)
    for _ in range(30):
        body(pictures)
    assert norm.running_mean is not None
    assert (norm.running_mean - seen[-1]).abs().max() < 0.1 * seen[-1].abs().max()


def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (_network(seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_state_dict_on_disk_fills_the_body_and_the_head_where_it_fits(tmp_path: Path) -> None:
    source, path = _network(1), tmp_path / "network.pt"
    torch.save(source.state_dict(), path)
    same = _network(2, weights=str(path))
    assert all(torch.equal(same.state_dict()[name], value) for name, value in source.state_dict().items())
    other_head = _network(2, weights=str(path), target="years")
    assert torch.equal(other_head.body.conv1[0].weight, source.body.conv1[0].weight)
    with pytest.raises(ModelError, match="give weights of the same network"):
        _network(2, weights=str(path), network="resnet18")


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    path = tmp_path / "trap.pt"
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(ModelError, match="not a file of weights"):
        _network(weights=str(path))
