"""The strategies, driven with made-up trials: what they request of which settings, and what they choose."""

from pathlib import Path

import pytest

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.errors import TrainingError
from agepipe.data.records import Rows
from agepipe.search.records import Request, Trial, TrialId
from agepipe.search.strategies import Strategy, best_settings, grid, halving, plan, run, strategy
from agepipe.training.records import Choice

GRID = SearchSettings(grid={"lr": (0.1, 0.2, 0.3, 0.4, 0.5)}, folds=2)
HALVING = GRID.model_copy(update={"strategy": "halving", "rungs": (1, 4)})
SCORES = {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.4, 4: 0.2}
"""Mean of each setting over folds."""


class Trainer:
    """Makes trials up: each has its setting's score, but for those that diverge after some epoch."""

    def __init__(self, scores: dict[int, float], diverging: dict[TrialId, int] | None = None, epochs: int = 8) -> None:
        self._scores, self._diverging, self._epochs = scores, diverging or {}, epochs
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> list[Trial]:
        self.requests.append(request)
        until = request.until or self._epochs
        return [
            Trial(
                digest=f"{spec.id} {until}", settings=spec.settings, setting=spec.setting, fold=spec.fold, seconds=1.0,
                metrics=self._metrics(spec.id), epochs=until, planned=self._epochs, folder=Path("trials"),
            )
            for spec in request.specs
            if self._diverging.get(spec.id, self._epochs + 1) > until
        ]  # fmt: skip

    def _metrics(self, trial: TrialId) -> dict[str, float]:
        value = self._scores[trial[0]] + (0.05 if trial[1] else -0.05)
        return {"macro_recall": value, "mae": 9 - value}

    @property
    def asked(self) -> list[tuple[set[int], int | None]]:
        """The settings of each request, and the epoch that they are trained to."""
        return [({spec.setting for spec in one.specs}, one.until) for one in self.requests]


def test_the_grid_is_every_setting_on_every_fold() -> None:
    specs = plan(SearchSettings(grid={"lr": (0.01, 0.02), "head": ("v1", "linear")}, folds=2, seed=7))
    assert [spec.id for spec in specs] == [(setting, fold) for setting in range(4) for fold in range(2)]
    assert specs[2].settings == {"lr": 0.01, "head": "linear"}
    assert {(spec.fold.count, spec.fold.seed) for spec in specs} == {(2, 7)}


@pytest.mark.parametrize("always", [False, True])
def test_a_single_setting_is_trained_only_if_always_is_set(always: bool) -> None:
    train = Trainer({0: 0.5})
    choice = run(grid(SearchSettings(grid={"lr": (0.1,)}, folds=3, always=always)), train)
    assert [len(request.specs) for request in train.requests] == [3 if always else 0]
    assert (choice.settings, choice.trials) == ({"lr": 0.1}, 3 if always else 0)


def test_grid_requests_all_at_once_and_chooses_the_best() -> None:
    train = Trainer(SCORES)
    choice = run(grid(GRID), train)
    assert train.asked == [({0, 1, 2, 3, 4}, None)]
    assert (choice.settings, choice.trials) == ({"lr": 0.2}, 10)


def test_grid_leaves_out_a_setting_that_diverges_on_a_fold() -> None:
    choice = run(grid(GRID), Trainer(SCORES, {(1, 0): 3}))
    assert (choice.settings, choice.trials) == ({"lr": 0.4}, 8)


@pytest.mark.parametrize("metric", ["macro_recall", "mae"])
def test_halving_requests_the_best_share_at_each_rung(metric: str) -> None:
    train = Trainer(SCORES)
    choice = run(halving(HALVING.model_copy(update={"metric": metric})), train)
    assert train.asked == [({0, 1, 2, 3, 4}, 1), ({1, 2, 3}, 4), ({1, 3}, None)]
    assert [{one.setting for one in request.stop} for request in train.requests] == [set(), {0, 4}, {2}]
    for before, request in zip(train.requests[:-1], train.requests[1:], strict=True):
        assert [one.id for one in request.paused] == [spec.id for spec in request.specs]
        assert {one.epochs for one in request.paused} == {before.until}
    assert (choice.settings, choice.trials) == ({"lr": 0.2}, 10)
    assert [(one.settings["lr"], one.epochs) for one in choice.stopped] == [(0.1, 1), (0.3, 4), (0.5, 1)]


def test_halving_stops_a_setting_that_diverges_and_keeps_the_same_number() -> None:
    train = Trainer(SCORES, {(1, 0): 1, (3, 1): 3})
    choice = run(halving(HALVING), train)
    assert train.asked == [({0, 1, 2, 3, 4}, 1), ({2, 3, 4}, 4), ({2, 4}, None)]
    assert {one.id for one in train.requests[1].stop} == {(0, 0), (0, 1), (1, 1)}, "its other fold stops too"
    assert {one.id for one in train.requests[2].stop} == {(3, 0)}
    assert choice.settings == {"lr": 0.3}
    assert [one.settings["lr"] for one in choice.stopped] == [0.1], "a diverged setting has no mean over folds"


@pytest.mark.parametrize("search", [GRID, HALVING], ids=lambda search: search.strategy)
def test_a_search_whose_settings_all_diverge_is_an_error(search: SearchSettings) -> None:
    diverging = {(setting, 0): 1 for setting in SCORES}
    with pytest.raises(TrainingError):
        run(halving(search) if search.rungs else grid(search), Trainer(SCORES, diverging))


def test_of_equal_settings_the_earlier_continue() -> None:
    trials = Trainer(dict.fromkeys(range(5), 0.5))(Request(plan(GRID)))
    assert best_settings(trials, GRID, 2) == {0, 1}


def test_a_strategy_is_closed_after_an_error() -> None:
    closed = []

    def failing(request: Request) -> list[Trial]:
        raise OSError("planted")

    def steps() -> Strategy:
        try:
            yield Request(())
            raise AssertionError("not continued")
        finally:
            closed.append(True)

    with pytest.raises(OSError, match="planted"):
        run(steps(), failing)
    assert closed


def test_the_setting_names_the_strategy(rows: Rows, runtime: Runtime) -> None:
    asked, choices = [], list[Choice]()
    for search in (GRID, HALVING):
        train = Trainer(SCORES)
        choices.append(run(strategy(rows, LearnSettings(), search, runtime), train))
        asked.append(len(train.requests))
    assert asked == [1, 3]
    assert choices[0].settings == choices[1].settings
