"""Networks of timm, and real ImageNet weights out of a package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agepipe.config.learn import LearnSettings
from agepipe.config.pretrained import PACKAGES, is_timm, packaged
from agepipe.config.stages import Config
from agepipe.core.errors import ConfigError, ModelError
from agepipe.model.ages import AgeRanges
from agepipe.training.backbones import backbone, normalisation
from agepipe.training.check import check
from agepipe.training.export import export
from agepipe.training.network import build
from agepipe.training.workdir import weights_digest

LITE = "timm/tf_efficientnet_lite0"
PRETRAINED = LearnSettings(network=LITE, weights="pretrained", size=64)


def _file(network: str = LITE) -> Path:
    path = packaged(network)
    if path is None:
        pytest.skip(f"the package {PACKAGES[network]} (the extra 'pretrained') is not installed")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name in PACKAGES if is_timm(name)])
def test_a_package_fills_the_whole_network_but_the_head(network: str) -> None:
    given = list(torch.load(_file(network), map_location="cpu", weights_only=True).values())
    own = backbone(PRETRAINED.model_copy(update={"network": network}), 14).state_dict()
    body = [value for name, value in own.items() if not name.startswith("classifier")]
    assert len(body) == len(given) - 2
    assert all(torch.equal(found, meant) for found, meant in zip(body, given, strict=False))
    assert own["classifier.1.weight"].shape == (14, 1280)


def test_pretrained_weights_come_with_their_own_normalisation() -> None:
    assert normalisation(PRETRAINED) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation(LearnSettings(network="resnet18", weights="pretrained"))[0] == (0.485, 0.456, 0.406)
    assert normalisation(LearnSettings(network="resnet18", weights="IMAGENET1K_V1"))[0] == (0.485, 0.456, 0.406)
    assert normalisation(LearnSettings(network="resnet18")) is None
    assert normalisation(LearnSettings(network="resnet18", weights=__file__)) is None  # nobody knows


def test_the_key_of_a_model_has_the_digest_of_the_packages_file() -> None:
    _file()
    assert len(weights_digest(PRETRAINED)) == 64
    assert weights_digest(PRETRAINED) != weights_digest(
        PRETRAINED.model_copy(update={"network": LITE.replace("0", "1")})
    )


@pytest.mark.slow
def test_the_exported_network_agrees_with_torch_on_real_photographs(tmp_path: Path, faces: NDArray[np.uint8]) -> None:
    _file()
    mean, std = normalisation(PRETRAINED) or ((), ())
    export(build(PRETRAINED, AgeRanges.of("utkface"), mean, std), faces[:8], tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 10e6


@pytest.mark.slow
def test_a_wrong_name_is_refused_with_the_nearest_before_any_training() -> None:
    with pytest.raises(ConfigError, match=r"'timm/efficientnet_lite9' .* nearest is 'timm/efficientnet_lite4'"):
        check(Config(learn=LearnSettings(network="timm/efficientnet_lite9", size=64)))


@pytest.mark.slow
def test_a_size_that_the_network_does_not_take_is_refused_before_any_training() -> None:
    with pytest.raises(ConfigError, match=r"learn\.size: .* 64 px"):
        check(Config(learn=LearnSettings(network="timm/vit_tiny_patch16_224", size=64)))


@pytest.mark.slow
def test_a_network_without_pretrained_weights_is_refused_where_they_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="no pretrained weights"):
        check(Config(learn=LearnSettings(network="timm/coatnet_0_224", weights="pretrained", size=64)))


def test_without_a_hub_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="could not be downloaded"):
        backbone(LearnSettings(network="timm/resnet18", weights="pretrained", size=64), 14)
