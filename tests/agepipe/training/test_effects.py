"""Law 7, from end to end: every field of `learn` that is turned changes what a real training comes to.

Each training has a few steps on one seed. The last test counts the fields, so that a new one cannot be left out.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import first_rows

from agepipe.config.base import changed, field_names
from agepipe.config.stages import LearnSettings
from agepipe.core.record import digest_of
from agepipe.training.job import Job
from agepipe.training.loop import Training

BASE: dict[str, Any] = {
    "network": "shufflenet_v2_x0_5", "size": 36, "epochs": 2, "batch": 16, "lr": 0.02, "target": "ranges",
    "augment.flip": 0.0, "augment.shift": False,
}  # fmt: skip
YEARS = {"target": "years"}
SGD = {"optimizer": "sgd"}
SMALLER = {"size": 32}

EFFECTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"network": "mobilenet_v3_small"}),
    ({}, {"head": "v2"}),
    ({}, {"dropout": 0.5}),
    ({"head": "v1"}, {"head": "v1", "dropout": 0.5}),
    ({}, SMALLER),
    ({}, {"sizes": [32, 36]}),
    ({}, YEARS),
    ({}, {"target": "ordinal"}),
    ({}, {"label_smoothing": 0.2}),
    ({}, {"class_weights": True}),
    (YEARS, {**YEARS, "class_weights": True}),
    (YEARS, {**YEARS, "years_loss": 1.0}),
    ({}, {"helpers": 0.3}),
    ({"helpers": 0.3}, {"helpers": 0.9}),
    ({}, SGD),
    ({}, {"lr": 0.01}),
    (SGD, {**SGD, "lr": 0.01}),
    ({}, {"layer_decay": 0.5}),
    (SGD, {**SGD, "clip": 0.1}),
    ({}, {"momentum": 0.5}),
    (SGD, {**SGD, "momentum": 0.4}),
    (SGD, {**SGD, "nesterov": True}),
    ({}, {"weight_decay": 0.5}),
    (SGD, {**SGD, "weight_decay": 0.5}),
    ({}, {"l1": 0.001}),
    ({}, {"schedule": "constant"}),
    ({}, {"schedule": "cosine"}),
    ({}, {"batch": 8}),
    ({}, {"epochs": 3}),
    ({}, {"average": 0.9}),
    ({}, {"mirror": True}),
    ({}, {"decoding": "median"}),
    ({}, {"seed": 2}),
    ({}, {"augment.flip": 0.5}),
    (SMALLER, {**SMALLER, "augment.shift": True}),
    *(
        ({}, {f"augment.{name}": value})
        for name, value in {
            "rotate": 10.0, "scale": 0.2, "brightness": 0.3, "contrast": 0.3, "grey": 0.5, "erase": 0.5, "blur": 0.5,
            "jpeg": 0.5, "mix": 1.0,
        }.items()
    ),
]  # fmt: skip
"""What a training has beside `BASE`, and what it has with the field turned."""


Outcome = tuple[list[Tensor], list[dict[str, float]]]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """What trainings came to, by their changes; many tests compare with the same one."""
    return {}


@pytest.fixture
def train(job: Job, outcomes: dict[str, Outcome]) -> Callable[[dict[str, Any]], Outcome]:
    def trained(changes: dict[str, Any]) -> Outcome:
        key = repr(sorted(changes.items()))
        if key not in outcomes:
            outcomes[key] = _trained(job, changes)
        return outcomes[key]

    return trained


def _trained(job: Job, changes: dict[str, Any]) -> Outcome:
    """The weights that are kept, and the figures of each epoch."""
    learn = changed(LearnSettings(), {**BASE, **changes})
    training = Training(
        dataclasses.replace(
            first_rows(job, 32), learn=learn, folder=job.folder / digest_of(sorted(changes.items()))[:8]
        )
    )
    while not training.finished:
        training.epoch()
    kept = [value.clone() for value in training.evaluated_network.state_dict().values() if value.is_floating_point()]
    return kept, [{name: value for name, value in row.items() if name != "seconds"} for row in training.curves]


def _name(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "base"


@pytest.mark.parametrize(("before", "after"), EFFECTS, ids=[f"{_name(one)} to {_name(two)}" for one, two in EFFECTS])
def test_a_field_that_is_turned_changes_the_training(
    train: Callable[[dict[str, Any]], Outcome], before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert not _same(train(before), train(after))


def test_the_same_fields_give_the_same_training(job: Job, tmp_path: Path) -> None:
    """Otherwise the tests above would say nothing."""
    assert _same(*(_trained(dataclasses.replace(job, folder=tmp_path / name), {}) for name in ("one", "two")))


def _same(first: Outcome, second: Outcome) -> bool:
    (weights, curves), (others, figures) = first, second
    alike = len(weights) == len(others) and all(
        one.shape == two.shape and torch.equal(one, two) for one, two in zip(weights, others, strict=True)
    )
    return alike and curves == figures


def test_first_weights_from_a_file_are_where_the_training_begins(job: Job, tmp_path: Path) -> None:
    learn = changed(LearnSettings(), {**BASE, "seed": 9})
    other = Training(dataclasses.replace(job, learn=learn, folder=tmp_path / "other"))
    torch.save(other.network.state_dict(), tmp_path / "first.pt")
    warm = changed(LearnSettings(), {**BASE, "weights": str(tmp_path / "first.pt")})
    begun = Training(dataclasses.replace(job, learn=warm, folder=tmp_path / "warm")).network.body.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in other.network.body.state_dict().items())


def test_no_field_is_left_out() -> None:
    turned = {name for before, after in EFFECTS for name in after if after[name] != before.get(name)}
    assert turned | {"weights"} == set(field_names(LearnSettings))
