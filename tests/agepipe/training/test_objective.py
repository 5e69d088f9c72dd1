import logging
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agepipe.config.stages import LearnSettings
from agepipe.model.ages import AgeRanges
from agepipe.training.network import GENDERS, RACES, AgeNetwork, Readout, build
from agepipe.training.objective import Objective, l1_norm

UTKFACE = AgeRanges.of("utkface")
AGES = torch.tensor([1, 8, 26, 26, 40, 63, 116, 90])
LABELS = torch.from_numpy(UTKFACE.classes(AGES.numpy()))


def _by_hand(learn: LearnSettings, logits: NDArray[np.float64]) -> float:
    """The loss of `AGES` by the formulas of the settings' descriptions, in float64."""
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    labels, ages, classes = LABELS.numpy(), AGES.numpy(), logits.shape[1]
    years = np.arange(1, 117)
    if learn.target == "years":
        target = np.exp(-((years - ages[:, None]) ** 2) / (2 * (2 + 0.03 * ages[:, None]) ** 2))
    elif learn.target == "ordinal":
        target = np.exp(-((np.arange(classes) - labels[:, None]) ** 2.0))
    else:
        target = (1 - learn.label_smoothing) * np.eye(classes)[labels] + learn.label_smoothing / classes
    target /= target.sum(1, keepdims=True)
    counts = np.bincount(labels)
    weight = len(labels) / (np.count_nonzero(counts) * counts[labels]) if learn.class_weights else np.ones(len(labels))
    loss = (weight * -(target * log).sum(1)).mean()
    if learn.target == "years":
        loss += learn.years_loss * (weight * np.abs(np.exp(log) @ years - ages)).mean()
    return float(loss)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_smoothing": 0.3},
        {"class_weights": True},
        {"class_weights": True, "label_smoothing": 0.3},
        {"target": "ordinal"},
        {"target": "ordinal", "class_weights": True},
        {"target": "years", "years_loss": 0.0},
        {"target": "years", "years_loss": 0.7},
        {"target": "years", "years_loss": 0.7, "class_weights": True},
    ],
)
def test_the_loss_is_that_of_its_formula(changes: dict[str, Any]) -> None:
    """A term that is halved, counted twice or not weighted changes the gradient, and training would not fail."""
    learn = LearnSettings(**changes)
    readout = Readout(UTKFACE, by_year=learn.target == "years")
    logits = 2 * torch.randn(len(AGES), readout.outputs, generator=torch.Generator().manual_seed(0))
    network = nn.Linear(1, 1)
    objective = Objective(learn, UTKFACE, readout, LABELS)
    loss = float(objective(network, logits, LABELS, AGES))  # type: ignore[arg-type]
    assert loss == pytest.approx(_by_hand(learn, logits.double().numpy()), rel=1e-5)
    with_l1 = Objective(learn.model_copy(update={"l1": 0.4}), UTKFACE, readout, LABELS)
    weighed = float(with_l1(network, logits, LABELS, AGES, 0.25).detach())  # type: ignore[arg-type]
    norm = sum(float(one.detach().abs().sum()) for one in network.parameters())
    assert weighed == pytest.approx(0.25 * loss + 0.4 * norm, rel=1e-5)


def test_the_helping_loss_is_the_cross_entropy_of_gender_and_that_of_race() -> None:
    logits = 2 * torch.randn(5, GENDERS + RACES, generator=torch.Generator().manual_seed(0))
    genders, races = torch.tensor([0, 1, -1, 1, 0]), torch.tensor([4, -1, 2, -1, 0])
    values = logits.double().numpy()

    def entropy(columns: slice, truth: Tensor) -> list[float]:
        shares = np.exp(values[:, columns]) / np.exp(values[:, columns]).sum(1, keepdims=True)
        return [-np.log(shares[row, label]) for row, label in enumerate(truth.tolist()) if label >= 0]

    gender, race = entropy(slice(0, 2), genders), entropy(slice(2, 7), races)
    objective = Objective(LearnSettings(helpers=0.3), UTKFACE, Readout(UTKFACE, by_year=False), LABELS)
    mean = np.mean(gender) + np.mean(race)
    assert float(objective.helper_loss(logits, genders, races)) == pytest.approx(0.3 * mean)
    parts = objective.helper_loss(logits, genders, races, [torch.tensor(8), torch.tensor(5)])
    assert float(parts) == pytest.approx(0.3 * (sum(gender) / 8 + sum(race) / 5))


def _gradient(**changes: object) -> tuple[Tensor, float]:
    """The gradient of all parameters and the loss of one batch, from one seed."""
    learn = LearnSettings(**{"size": 32, "dropout": 0.0, "target": "ranges", **changes})
    torch.manual_seed(0)
    network = build(learn, UTKFACE, (0.5,) * 3, (0.25,) * 3)
    levels = torch.randint(0, 256, (len(AGES), 32, 32, 3)).float()
    loss = _loss(learn, network, levels)
    loss.backward()
    return torch.cat([one.grad.flatten() for one in network.parameters()]), float(loss.detach())


def _loss(learn: LearnSettings, network: AgeNetwork, levels: Tensor) -> Tensor:
    labels = torch.from_numpy(UTKFACE.classes(AGES.numpy()))
    objective = Objective(learn, UTKFACE, network.readout, labels)
    return objective(network, network.logits(levels), labels, AGES)


@pytest.mark.parametrize(
    "changes",
    [
        {"l1": 0.01},
        {"class_weights": True},
        {"label_smoothing": 0.2},
        {"dropout": 0.5},
        {"target": "years"},
        {"target": "ordinal"},
    ],
)
def test_each_setting_changes_the_gradient(changes: dict[str, object]) -> None:
    before, _ = _gradient()
    after, _ = _gradient(**changes)
    assert before.shape != after.shape or not torch.allclose(before, after, rtol=1e-3)


@pytest.mark.parametrize("changes", [{"years_loss": 1.0}, {"class_weights": True}, {"l1": 0.01}])
def test_each_setting_changes_the_gradient_of_single_years(changes: dict[str, object]) -> None:
    before, _ = _gradient(target="years", years_loss=0.1)
    after, _ = _gradient(**{"target": "years", "years_loss": 0.1, **changes})
    assert not torch.allclose(before, after, rtol=1e-3)


def test_l1_adds_its_sign_to_the_gradient_of_every_parameter() -> None:
    learn = LearnSettings(size=32, l1=0.01)
    torch.manual_seed(0)
    network = build(learn, UTKFACE, (0.5,) * 3, (0.25,) * 3)
    weights = torch.cat([one.detach().flatten() for one in network.parameters()])
    plain, loss = _gradient(l1=0.0)
    with_l1, loss_with = _gradient(l1=0.01)
    assert torch.allclose(with_l1 - plain, 0.01 * weights.sign(), atol=1e-4)
    assert loss_with - loss == pytest.approx(0.01 * float(l1_norm(network).detach()), rel=1e-3)


def test_an_l1_that_dwarfs_the_loss_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _gradient(l1=0.9)
    assert sum("learn.l1" in record.message for record in caplog.records) == 1
    caplog.clear()
    readout = Readout(UTKFACE, by_year=False)
    objective = Objective(LearnSettings(l1=0.9), UTKFACE, readout, LABELS)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            objective(nn.Linear(99, 99), torch.zeros(len(AGES), readout.outputs), LABELS, AGES)
    assert len(caplog.records) == 1
    caplog.clear()
    _gradient(l1=1e-7)
    assert not caplog.records


def _helped(genders: Tensor, races: Tensor) -> tuple[Tensor, Tensor]:
    """The helping loss of a batch, and its gradient with respect to the first layer of the network."""
    learn = LearnSettings(size=32, dropout=0.0, helpers=0.3)
    torch.manual_seed(0)
    network = build(learn, UTKFACE, (0.5,) * 3, (0.25,) * 3)
    objective = Objective(learn, UTKFACE, network.readout, torch.arange(len(UTKFACE)))
    logits = network.all_logits(torch.randint(0, 256, (4, 32, 32, 3)).float())
    assert logits.shape == (4, network.readout.outputs + GENDERS + RACES)
    loss = objective.helper_loss(logits[:, network.readout.outputs :], genders, races)
    loss.backward()
    first = next(network.parameters()).grad
    assert first is not None
    return loss.detach(), first


def test_rows_without_gender_or_race_do_not_count_for_the_helping_heads() -> None:
    some, _ = _helped(torch.tensor([0, -1, 0, 1]), torch.tensor([0, 1, -1, -1]))
    assert torch.isfinite(some)
    none, gradient = _helped(torch.full((4,), -1), torch.full((4,), -1))
    assert none == 0
    assert gradient.abs().sum() == 0


def test_the_answer_has_no_part_of_the_helping_heads() -> None:
    learn = LearnSettings(size=32, helpers=0.3)
    network = build(learn, UTKFACE, (0.5,) * 3, (0.25,) * 3).eval()
    probabilities, _ = network(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert probabilities.shape == (2, len(UTKFACE))
