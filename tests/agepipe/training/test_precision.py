"""The precision that a training chooses, and that it trains in it."""

import pytest
import torch
from torch import nn
from trainings import job_with

from agepipe.training.job import Job
from agepipe.training.loop import Training, precision

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["with AMX", "without AMX"])
def amx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": request.param})
    return bool(request.param)


def test_bfloat16_is_for_gpus_and_for_dense_networks_on_processors_that_multiply_it(amx: bool) -> None:
    dense, grouped = nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4))
    assert precision(CPU, dense) == ("bfloat16" if amx else "float32")
    assert precision(CPU, grouped) == "float32"
    assert precision(torch.device("cuda"), grouped) == "bfloat16"


def test_a_training_computes_in_its_precision_and_reports_it(job: Job, amx: bool) -> None:
    training = Training(job_with(job, network="face_resnet", lr=0.001, epochs=1))
    computed: set[torch.dtype] = set()
    for part in training.network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, __, output: computed.add(output.dtype))
    training.epoch()
    said = torch.from_numpy(training.result().probabilities)
    assert not torch.equal(said, said.bfloat16().float())  # sums of many years, which are calibrated
    assert computed == {torch.bfloat16 if amx else torch.float32}
    assert training.result().precision == ("bfloat16" if amx else "float32")
    assert {weights.dtype for weights in training.network.parameters()} == {torch.float32}
