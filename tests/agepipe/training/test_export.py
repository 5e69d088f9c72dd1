from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ModelError
from agepipe.model.ages import AgeRanges
from agepipe.training.export import OPSET, compare, export
from agepipe.training.network import AgeNetwork, Normalise, Readout, build

UTKFACE = AgeRanges.of("utkface")


def _network(**changes: object) -> AgeNetwork:
    torch.manual_seed(0)
    learn = LearnSettings(size=64, network="resnet18", **changes)
    return build(learn, UTKFACE, (0.598, 0.458, 0.391), (0.257, 0.229, 0.224)).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, faces: NDArray[np.uint8]) -> tuple[AgeNetwork, Path]:
    network = _network(target="years", mirror=True)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export(network, faces[:16], path)
    return network, path


def test_the_file_and_torch_agree_on_real_photographs(
    exported: tuple[AgeNetwork, Path], faces: NDArray[np.uint8]
) -> None:
    network, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):  # the number of pictures is free
        probabilities, years = session.run(["probabilities", "years"], {"images": faces[20 : 20 + count]})
        with torch.inference_mode():
            expected, expected_years = network(torch.from_numpy(faces[20 : 20 + count]))
        assert probabilities.shape == (count, 14)
        assert np.abs(probabilities - expected.numpy()).max() < 1e-4
        assert np.abs(years - expected_years.numpy()).max() < 1e-2


def _tiny() -> AgeNetwork:
    """A network of one layer, whose export takes little time."""
    readout = Readout(UTKFACE, by_year=False)
    body = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(4 * 64, readout.outputs))
    return AgeNetwork(body, Normalise((0.5,) * 3, (0.25,) * 3), readout, 64, mirror=True).eval()


def test_the_file_names_no_path_and_is_the_same_each_time(faces: NDArray[np.uint8], tmp_path: Path) -> None:
    network, paths = _tiny(), (tmp_path / "one.onnx", tmp_path / "two.onnx")
    for path in paths:
        export(network, faces[:16], path)
    content = paths[0].read_bytes()
    assert b"site-packages" not in content
    assert b"agepipe/" not in content
    assert paths[1].read_bytes() == content
    assert [(one.domain, one.version) for one in onnx.load(paths[0]).opset_import] == [("", OPSET)]
    assert onnx.load(paths[0]).graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_a_file_with_another_normalisation_is_refused(
    exported: tuple[AgeNetwork, Path], faces: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Law 6: the same weights behind another mean and deviation do not pass."""
    _, path = exported
    other = _network(target="years", mirror=True)
    other.normalise = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(ModelError, match=r"model\.onnx: differs from the trained network by"):
        compare(other, path.read_bytes(), faces[:16])


def test_a_network_that_answers_nothing_is_refused(faces: NDArray[np.uint8], tmp_path: Path) -> None:
    network = _tiny()
    with torch.no_grad():
        network.body[2].bias.fill_(float("nan"))
    with pytest.raises(ModelError):
        export(network, faces[:4], tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
