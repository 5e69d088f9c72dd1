from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ModelError
from agepipe.model.ages import AgeRanges
from agepipe.training.backbones import head
from agepipe.training.import_weights import read
from agepipe.training.network import Normalise

UTKFACE = AgeRanges.of("utkface")
LEARN = LearnSettings(network="shufflenet_v2_x0_5", size=32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURES = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class AgeModel(nn.Module):
    """As the notebook's: a torchvision network in an attribute, its last layer replaced."""

    def __init__(self, kind: str, outputs: int = 14) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.model = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None)
        plain = kind == "torchvision"
        self.model.fc = nn.Linear(1024, outputs) if plain else head(kind, 1024, 0.5, outputs)

    @torch.inference_mode()
    def answers(self) -> Tensor:
        return self.eval().model(Normalise(MEAN, STD)(PICTURES)).softmax(1)


def _saved(folder: Path, kind: str, outputs: int = 14) -> tuple[Path, Tensor]:
    model = AgeModel(kind, outputs)
    torch.save(model.state_dict(), folder / "checkpoint.pt")
    return folder / "checkpoint.pt", model.answers()


@pytest.mark.parametrize("kind", ["v1", "v2", "v3", "linear", "torchvision"])
def test_the_head_is_found_out_and_the_answers_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    path, expected = _saved(tmp_path, kind)
    with torch.inference_mode():
        probabilities, years = read(path, LEARN, UTKFACE, "age", MEAN, STD)(PICTURES)
    assert torch.allclose(probabilities, expected, atol=1e-6)
    assert torch.allclose(years, expected @ torch.tensor(UTKFACE.mid_ages).float(), atol=1e-3)


def test_outputs_in_the_order_of_text_are_put_into_class_order(tmp_path: Path) -> None:
    path, expected = _saved(tmp_path, "v2")
    with torch.inference_mode():
        probabilities, _ = read(path, LEARN, UTKFACE, "text", MEAN, STD)(PICTURES)
    names = ["0", "1", "10", "11", "12", "13", "2", "3", "4", "5", "6", "7", "8", "9"]
    for output, name in enumerate(names):
        assert torch.allclose(probabilities[:, int(name)], expected[:, output], atol=1e-6)


@pytest.mark.parametrize(
    ("ranges", "first"), [(AgeRanges.of("years"), 1), (AgeRanges.of([str(age) for age in range(95, 106)]), 95)]
)
def test_folders_of_single_years_sort_as_their_years(ranges: AgeRanges, first: int, tmp_path: Path) -> None:
    """'10' and '100' come before '2', and there is no folder '0'."""
    path, expected = _saved(tmp_path, "v2", len(ranges))
    with torch.inference_mode():
        probabilities, _ = read(path, LEARN, ranges, "text", MEAN, STD)(PICTURES)
    for output, age in enumerate(sorted(range(first, first + len(ranges)), key=str)):
        assert torch.allclose(probabilities[:, age - first], expected[:, output], atol=1e-6)


def test_a_number_of_outputs_that_are_not_the_ranges_is_refused(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path, "v1", 104)
    with pytest.raises(ModelError, match="has 104 outputs, but there are 14 ranges"):
        read(path, LEARN, UTKFACE, "age", MEAN, STD)


def test_another_network_is_refused(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path, "v1")
    with pytest.raises(ModelError, match="does not hold the network that --network names"):
        read(path, LEARN.model_copy(update={"network": "resnet18"}), UTKFACE, "age", MEAN, STD)
    with pytest.raises(ModelError, match=r"its head 'classifier\.1' has linear layers at no place"):
        read(path, LEARN.model_copy(update={"network": "efficientnet_b0"}), UTKFACE, "age", MEAN, STD)


def test_a_pickled_object_is_not_loaded(tmp_path: Path) -> None:
    torch.save(AgeModel("v1"), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match="is not a file of weights"):
        read(tmp_path / "whole.pt", LEARN, UTKFACE, "age", MEAN, STD)
