"""The network that recognises faces, and its weights out of dlib's file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from agepipe.config.learn import LearnSettings
from agepipe.config.pretrained import FACE_RESNET, FACE_RESNET_BN, packaged
from agepipe.core.errors import ConfigError, ModelError
from agepipe.model.ages import AgeRanges
from agepipe.training import backbones, face_resnet
from agepipe.training.export import export
from agepipe.training.face_resnet import MEAN, STD, FaceResNet, fill
from agepipe.training.network import Normalise, build
from agepipe.training.workdir import weights_digest

PRETRAINED = LearnSettings(network=FACE_RESNET, weights="pretrained", size=64)


def _file() -> Path:
    path = packaged(FACE_RESNET)
    if path is None:
        pytest.skip("the package face-recognition-models (the extra 'pretrained') is not installed")
    return path


def _features(network: FaceResNet, pictures: torch.Tensor) -> torch.Tensor:
    network.fc = torch.nn.Identity()  # type: ignore[assignment]
    with torch.inference_mode():
        return functional.normalize(network.eval()(Normalise(MEAN, STD)(pictures)))


def _share_of_faces_found_again(network: FaceResNet, faces: NDArray[np.uint8]) -> float:
    """Of 60 faces, those that are more like their own mirror image than like any other one."""
    pictures = torch.from_numpy(np.stack([cv2.resize(face, (150, 150)) for face in faces[:60]]))
    likeness = _features(network, pictures) @ _features(network, pictures.flip(2)).T
    return float((likeness.argmax(1) == torch.arange(len(pictures))).float().mean())


def test_with_dlibs_weights_it_tells_real_faces_apart(faces: NDArray[np.uint8]) -> None:
    trained = FaceResNet()
    fill(trained, _file())
    assert _share_of_faces_found_again(trained, faces) > 0.95
    swapped = FaceResNet()
    fill(swapped, _file())
    first, second = swapped.blocks[1], swapped.blocks[2]
    swapped.blocks[1], swapped.blocks[2] = second, first
    assert _share_of_faces_found_again(swapped, faces) < _share_of_faces_found_again(trained, faces)


def test_its_weights_come_with_their_normalisation_and_their_digest() -> None:
    _file()
    assert backbones.normalisation(PRETRAINED) == (MEAN, STD)
    assert backbones.normalisation(LearnSettings(network=FACE_RESNET)) is None
    assert len(weights_digest(PRETRAINED)) == 64


@pytest.mark.parametrize("network", [FACE_RESNET, FACE_RESNET_BN])
@pytest.mark.parametrize("side", [32, 47, 64, 97])
def test_it_takes_any_size(side: int, network: str) -> None:
    body = backbones.backbone(LearnSettings(network=network, size=64), 14)
    assert body(torch.zeros(2, 3, side, side)).shape == (2, 14)


def test_with_batch_norm_a_block_begins_as_its_shortcut_and_no_convolution_has_a_bias() -> None:
    network = FaceResNet(batch_norm=True)
    levels = torch.rand(4, 32, 8, 8)
    assert torch.equal(network.blocks[0](levels), levels)
    assert all(convolution.bias is None for convolution in network.convolutions())


def test_the_form_with_batch_norm_has_no_pretrained_weights() -> None:
    with pytest.raises(ConfigError, match="neither a file nor known for face_resnet_bn; the nearest is 'none'"):
        LearnSettings(network=FACE_RESNET_BN, weights="pretrained")


def test_pictures_are_normalised_as_in_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    own, dlibs = FaceResNet(), FaceResNet()
    fill(own, _file())
    monkeypatch.setattr(face_resnet, "STD", (256 / 255,) * 3)
    fill(dlibs, _file())
    levels = torch.randint(0, 256, (1, 21, 21, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    as_dlib = ((levels.float() - 255 * torch.tensor(MEAN)) / 256).permute(0, 3, 1, 2)
    assert torch.allclose(own.stem(Normalise(MEAN, STD)(levels)), dlibs.stem(as_dlib), atol=1e-3)


@pytest.mark.parametrize("kept", [0, 1000, 1_000_000])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    (tmp_path / "short.dat").write_bytes(_file().read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"short\.dat"):
        fill(FaceResNet(), tmp_path / "short.dat")


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "packaged", lambda _network: None)
    with pytest.raises(ModelError, match="extra 'pretrained'"):
        backbones.backbone(PRETRAINED, 14)


def test_a_mistyped_name_is_answered_with_it() -> None:
    with pytest.raises(ConfigError, match=f"'{FACE_RESNET}'"):
        LearnSettings(network="face_resnet27")


@pytest.mark.slow
@pytest.mark.parametrize("learn", [PRETRAINED, LearnSettings(network=FACE_RESNET_BN, size=64)])
def test_the_exported_network_agrees_with_torch_on_real_photographs(
    tmp_path: Path, faces: NDArray[np.uint8], learn: LearnSettings
) -> None:
    _file()
    export(build(learn, AgeRanges.of("utkface"), MEAN, STD), faces[:8], tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 10e6
