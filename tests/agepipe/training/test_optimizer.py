import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agepipe.config.stages import LearnSettings
from agepipe.training.optimizer import Average, optimizer, schedule


def _moved(steps: int = 3, **changes: object) -> Tensor:
    """The weights of a small network after some steps on one gradient."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    moving = optimizer(LearnSettings(**{"lr": 0.1, "optimizer": "sgd", "momentum": 0.5, **changes}), network)
    for step in range(steps):
        moving.zero_grad()
        network(torch.full((2, 4), 0.1 + step) * torch.arange(4)).square().sum().backward()
        moving.step()
    return torch.cat([one.detach().flatten() for one in network.parameters()])


@pytest.mark.parametrize(
    "changes", [{"momentum": 0.9}, {"nesterov": True}, {"weight_decay": 0.5}, {"lr": 0.05}, {"optimizer": "adamw"}]
)
def test_each_setting_changes_the_update(changes: dict[str, object]) -> None:
    assert not torch.allclose(_moved(), _moved(**changes), rtol=1e-3)


@pytest.mark.parametrize("changes", [{"momentum": 0.5}, {"weight_decay": 0.9}, {"lr": 0.05}])
def test_each_setting_changes_the_update_of_adamw(changes: dict[str, object]) -> None:
    base = {"optimizer": "adamw", "momentum": 0.9, "weight_decay": 0.0}
    assert not torch.allclose(_moved(**base), _moved(**{**base, **changes}), rtol=1e-3)


def test_adamw_decays_no_norms_and_biases() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    groups = optimizer(LearnSettings(weight_decay=0.3), network).param_groups
    decay = {id(one): group["weight_decay"] for group in groups for one in group["params"]}
    assert [decay[id(one)] for one in network.parameters()] == [0.3, 0, 0, 0, 0.3, 0]


def test_the_optimizers_have_the_settings_as_they_are() -> None:
    network = nn.Linear(2, 2)
    learn = LearnSettings(lr=0.3, momentum=0.7, weight_decay=0.2, optimizer="sgd", nesterov=True)
    for group in optimizer(learn, network).param_groups:
        found = (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"])
        assert found == (0.3, 0.7, 0.2, True, 0)
    still = learn.model_copy(update={"momentum": 0.0})  # torch has no Nesterov step without momentum
    assert not optimizer(still, network).param_groups[0]["nesterov"]
    for group in optimizer(learn.model_copy(update={"optimizer": "adamw"}), network).param_groups:
        assert (group["lr"], group["betas"]) == (0.3, (0.7, 0.999))


def test_each_block_learns_slower_than_the_one_after_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    groups = optimizer(LearnSettings(lr=0.4, layer_decay=0.5), network).param_groups
    rate = {id(one): group["lr"] for group in groups for one in group["params"]}
    assert [rate[id(one)] for one in network.parameters()] == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4])


def test_one_cycle_raises_each_block_to_its_own_rate() -> None:
    learn = LearnSettings(lr=0.4, layer_decay=0.5, schedule="one-cycle")
    moving = optimizer(learn, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    moves, seen = schedule(learn, moving, 100), []
    for _ in range(100):
        seen.append([group["lr"] for group in moving.param_groups])
        moving.step()
        moves.step()
    groups = [{id(one) for one in group["params"]} for group in moving.param_groups]
    assert len(groups) == 4  # two blocks, each with what decays and what does not
    assert np.max(seen, axis=0).tolist() == pytest.approx([0.2, 0.2, 0.4, 0.4])


def test_the_average_follows_weights_and_statistics_and_is_warmed_up() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = Average(network, 0.99)  # type: ignore[arg-type]
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        average.network[0].weight.fill_(0.0)
        network[1].running_mean.fill_(1.0)
    average.update(network)  # type: ignore[arg-type]
    share = 1 - 2 / 11
    assert float(average.network[0].weight) == pytest.approx(share)
    assert float(average.network[1].running_mean) == pytest.approx(share)
    for _ in range(2000):
        average.update(network)  # type: ignore[arg-type]
    assert float(average.network[0].weight) == pytest.approx(1.0, abs=1e-4)
    assert not any(one.requires_grad for one in average.network.parameters())
