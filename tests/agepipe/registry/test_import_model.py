from pathlib import Path

import numpy as np
import pytest
import torch

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.core.errors import ConfigError
from agepipe.model.ages import AgeRanges
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup
from agepipe.registry.import_model import adopt, answers
from agepipe.training.network import AgeNetwork, build

GIVEN = {
    "network": "shufflenet_v2_x0_5", "size": 32, "order": "age", "ranges": "1-10,11-20,21-40,over40",
    "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25", "name": "found",
}  # fmt: skip


def _network() -> AgeNetwork:
    torch.manual_seed(2)
    learn = LearnSettings(network="shufflenet_v2_x0_5", size=32, head="v2")
    return build(learn, AgeRanges.of(("1-10", "11-20", "21-40", "over40")), (0.5,) * 3, (0.25,) * 3).eval()


@pytest.mark.slow
def test_a_file_becomes_a_version_that_answers_and_is_not_promoted(tracked: Runtime, tmp_path: Path) -> None:
    network = _network()
    torch.save(network.body.state_dict(), tmp_path / "found.pt")
    done = adopt(tmp_path / "found.pt", answers(GIVEN), tracked)
    assert (done.name, done.version, done.alias) == ("found", 1, "challenger")
    assert "nobody knows what it was trained on" in done.reason
    assert lookup.champion("found", tracked) is None
    model = lookup.resolve("1", tracked, "found")
    assert model.lineage == "unknown"
    pictures = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected, _ = network(torch.from_numpy(pictures))
    assert Predictor.load(model.folder).predict(pictures).probabilities == pytest.approx(expected.numpy(), abs=1e-4)
    assert adopt(tmp_path / "found.pt", answers(GIVEN), tracked).version == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "sorted"}, "'order' is 'sorted'"),
        ({"std": "58,57,57"}, "'std.0' is '58'"),
        ({"network": "resnet5"}, "learn.network: 'resnet5' is not known; the nearest is 'resnet50'"),
        ({"ranges": "1-10,12-20"}, "the ages 11 to 11"),
    ],
)
def test_answers_that_cannot_be_are_refused_by_name(
    changes: dict[str, str], message: str, runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "found.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=message):
        adopt(tmp_path / "found.pt", answers({**GIVEN, **changes}), runtime)
