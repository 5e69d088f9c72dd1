import pytest

from agepipe.config import Config
from agepipe.errors import ConfigError
from agepipe.learn.check import check
from agepipe.presets import load, names
from agepipe.settings import changed


@pytest.mark.parametrize("preset", names())
def test_every_preset_passes(preset: str) -> None:
    check(load(preset), rows_count=5000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn.network": "resnet5"}, "learn.network: 'resnet5' is not known; the nearest is 'resnet50'"),
        ({"learn.weights": "IMAGENET"}, "learn.weights: 'IMAGENET' is not known for shufflenet_v2_x0_5"),
        ({"learn.size": 128}, "learn.size: 128 px, but ingest.size stores 108"),
        ({"learn.network": "vit_b_16", "learn.size": 90}, "multiple of 16"),
        ({"learn.network": "inception_v3", "learn.size": 64}, "at least 75"),
        ({"search.grid": {"network": ["resnet18", "resnet19"]}}, "resnet19"),
        ({"search.grid": {"size": [96, 160]}}, "160 px, but ingest.size stores 108"),
        ({"learn.batch": 512}, "learn.batch: 512, but there are about 180 training rows"),
        ({"learn.nesterov": True, "learn.momentum": 0, "learn.optimizer": "sgd"}, "learn.nesterov"),
        ({"learn.nesterov": True}, r"learn.nesterov: True does nothing without learn.optimizer"),
        ({"learn.target": "years", "learn.label_smoothing": 0.1}, "learn.label_smoothing: 0.1 does nothing"),
        ({"learn.target": "ordinal", "learn.label_smoothing": 0.1}, "learn.label_smoothing: 0.1 does nothing"),
        ({"learn.target": "ordinal", "learn.years_loss": 0.2}, "learn.years_loss: 0.2 does nothing"),
        ({"final.refit": True, "final.patience": 3}, "final.patience: 3 does nothing with final.refit"),
        ({"search.grid": {"years_loss": [0.1, 5.0]}}, "learn.years_loss: 5.0 does nothing without learn.target"),
    ],
)
def test_what_cannot_work_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(changed(Config(), changes), rows_count=200)


def test_a_batch_is_measured_against_the_smallest_training() -> None:
    config = changed(Config(), {"learn.batch": 120, "search.grid": {"lr": [0.1, 0.2]}, "search.folds": 2})
    check(config, rows_count=300)
    with pytest.raises(ConfigError, match=r"about 100 training rows"):
        check(config, rows_count=200)
