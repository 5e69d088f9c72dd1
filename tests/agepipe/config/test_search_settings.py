import sys

import pytest

from agepipe.config.base import changed
from agepipe.config.stages import Config, SearchSettings
from agepipe.core.errors import ConfigError
from agepipe.training.check import check

FOUR = {"search.strategy": "halving", "search.grid": {"lr": [0.001, 0.002, 0.004, 0.008]}, "learn.epochs": 8}
SPAN = {"low": 1e-4, "high": 1e-2, "log": True}


def test_a_search_that_can_work_passes() -> None:
    changed(Config(), {**FOUR, "search.rungs": [2]})
    nine = {"lr": [0.001, 0.002, 0.004], "dropout": [0.1, 0.2, 0.3]}
    changed(Config(), {**FOUR, "search.grid": nine, "search.rungs": [2, 4], "search.keep": 0.4})


@pytest.mark.parametrize(("count", "share", "left"), [(10, 0.3, 3), (4, 0.5, 2), (5, 0.5, 3), (3, 0.1, 1)])
def test_the_share_is_rounded_up(count: int, share: float, left: int) -> None:
    assert SearchSettings.model_construct(keep=share).kept(count) == left


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**FOUR}, "search.rungs: there are none"),
        ({**FOUR, "search.rungs": [4, 2]}, r"search.rungs: \[4, 2\] must rise"),
        ({**FOUR, "search.rungs": [2, 2]}, "must rise"),
        ({"search.strategy": "optuna", "search.space.lr": [0.1, 0.2], "search.rungs": [2, 2]}, "must rise"),
        ({**FOUR, "search.rungs": [8]}, "below learn.epochs, which is 8"),
        ({**FOUR, "search.rungs": [1, 2]}, r"leave \[4, 2, 1\] settings"),
        ({**FOUR, "search.rungs": [2], "search.keep": 0.9}, r"leave \[4, 4\] settings"),
        ({**FOUR, "search.rungs": [2], "search.grid": {}}, r"leave \[1, 1\] settings"),
        ({**FOUR, "search.rungs": [2], "search.always": True}, "search.always: True does nothing"),
        ({**FOUR, "search.rungs": [2], "search.grid": {"epochs": [4, 8]}}, "search: 'epochs' cannot be searched"),
        ({"search.rungs": [2]}, r"search.rungs: \(2,\) does nothing with search.strategy = 'grid'"),
        ({"search.keep": 0.3}, "search.keep: 0.3 does nothing"),
        ({"search.trials": 9}, "search.trials: 9 does nothing.*'optuna'"),
        ({"search.together": 2}, "search.together: 2 does nothing"),
        ({"search.space": {"lr": SPAN}}, "search.space: .* does nothing with search.strategy = 'grid'"),
        ({**FOUR, "search.rungs": [2], "search.space": {"lr": SPAN}}, "search.space: .* does nothing"),
        ({**FOUR, "search.strategy": "optuna"}, "search.grid: .* does nothing with search.strategy = 'optuna'"),
    ],
)
def test_what_cannot_work_or_does_nothing_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(Config(), changes)


@pytest.mark.parametrize("folds", [0, 1, -3])
def test_folds_that_cannot_be_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError, match=r"'search\.folds' is"):
        changed(Config(), {"search.folds": folds})


OPTUNA = {"search.strategy": "optuna", "search.space": {"lr": SPAN}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**OPTUNA, "search.space": {}}, "search.space: it is empty"),
        ({**OPTUNA, "search.trials": 4, "search.together": 5}, "search.together: 5, but search.trials is 4"),
        ({**OPTUNA, "search.keep": 0.4}, "search.keep: .* does nothing"),
        ({**OPTUNA, "search.space": {"size": {"low": 64, "high": 200}}}, "search.space .*200 px, but ingest.size"),
        ({**OPTUNA, "search.space": {"network": ["resnet18", "resnet19"]}}, "resnet19"),
    ],
)
def test_a_space_that_cannot_work_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    changed(Config(), OPTUNA)
    with pytest.raises(ConfigError, match=message):
        changed(Config(), changes)


def test_the_extremes_of_a_space_are_measured_against_the_rows() -> None:
    pytest.importorskip("optuna", reason="needs agepipe[optuna]")
    wide = {"batch": {"low": 8, "high": 300}}
    check(changed(Config(), OPTUNA), rows_count=300)
    with pytest.raises(ConfigError, match=r"search\.space {'batch': 300.0}: learn.batch: 300"):
        check(changed(Config(), {**OPTUNA, "search.space": wide}), rows_count=300)


def test_optuna_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"'optuna' needs a package that is not installed; install agepipe\[optuna\]"):
        check(changed(Config(), OPTUNA))
