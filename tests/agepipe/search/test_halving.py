"""Rungs: what goes on, what stops, and that a pause changes nothing of what comes out."""

from pathlib import Path

import polars as pl
import pytest
from folders import tried

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.artifacts import read_manifest, write_manifest
from agepipe.core.errors import TrainingError
from agepipe.data.records import Rows
from agepipe.search.halving import rank
from agepipe.search.records import Fold, Trial
from agepipe.search.trial import PAUSED, choose, forget, plan
from agepipe.training.job import EpochEvent

FOLD = Fold(index=1, count=3, seed=30)
GRID = SearchSettings(strategy="halving", grid={"lr": (0.01, 0.02), "head": ("v1", "linear")}, folds=2, rungs=(1,))
LEARN = LearnSettings(epochs=3)


@pytest.fixture(scope="module")
def longer(learn: LearnSettings) -> LearnSettings:
    return learn.model_copy(update={"epochs": 3, "average": 0.9, "schedule": "one-cycle"})


@pytest.fixture
def here(runtime: Runtime) -> Runtime:
    return runtime.model_copy(update={"workers": 2})


def test_a_trial_that_pauses_at_rungs_ends_as_one_that_did_not(
    rows: Rows, longer: LearnSettings, here: Runtime, tmp_path: Path
) -> None:
    unbroken = tried(rows, longer, {}, 0, FOLD, here.model_copy(update={"workspace": tmp_path / "other"}))
    seen: list[EpochEvent] = []
    rungs: list[Trial] = []
    for until in (1, 2):
        before = rungs[-1] if rungs else None
        rungs.append(tried(rows, longer, {}, 0, FOLD, here, seen.append, until=until, before=before))
    assert [(one.epochs, one.planned, one.whole) for one in rungs] == [(1, 3, False), (2, 3, False)]
    last = tried(rows, longer, {}, 0, FOLD, here, seen.append, before=rungs[-1])
    assert [event.epoch for event in seen] == [1, 2, 3], "an epoch was trained twice"
    assert (last.digest, last.metrics, last.whole) == (unbroken.digest, unbroken.metrics, True)
    curves = [pl.read_parquet(one.folder / "curves.parquet").drop("seconds") for one in (last, unbroken)]
    assert curves[0].equals(curves[1])
    assert len({one.digest for one in (*rungs, last)}) == 3

    # what ran to the end knows its first epochs without training
    seen.clear()
    again = tried(rows, longer, {}, 0, FOLD, here, seen.append, until=2, whole=unbroken)
    assert (seen, again.metrics, again.digest) == ([], rungs[1].metrics, rungs[1].digest)


def test_a_stopped_trial_leaves_figures_and_no_checkpoint(rows: Rows, longer: LearnSettings, here: Runtime) -> None:
    paused = tried(rows, longer, {}, 0, FOLD, here, until=1)
    write_manifest(paused.folder, "search", longer, {}, {})
    assert list((paused.folder / PAUSED).iterdir())
    forget([paused])
    assert not list((paused.folder / PAUSED).iterdir())
    assert read_manifest(paused.folder) is not None, "it is finished still"
    assert (paused.folder / "curves.parquet").exists()

    # and where the search changes its mind, it begins from nothing
    seen: list[EpochEvent] = []
    tried(rows, longer, {}, 0, FOLD, here, seen.append, before=paused)
    assert [event.epoch for event in seen] == [1, 2, 3]


def _rung(scores: dict[int, float], epochs: int = 1, **changes: object) -> list[Trial]:
    return [
        Trial(
            digest=f"{place}{index}", settings=plan(GRID)[2 * place][1], setting=place,
            fold=Fold(index=index, count=2, seed=30), metrics={"macro_recall": score + index, "mae": 9 - score - index},
            seconds=1.0, epochs=epochs, planned=3, folder=Path("trials"), parameters=100, run=f"run{place}{index}",
        )
        for place, score in scores.items()
        for index in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["macro_recall", "mae"])
def test_the_best_share_by_the_mean_over_folds_goes_on(metric: str) -> None:
    search = GRID.model_copy(update={"metric": metric})
    on, stopped = rank(_rung({0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}), search, 2)
    assert [one.setting for one in on] == [1, 1, 3, 3]
    assert [one.setting for one in stopped] == [0, 0, 2, 2]
    on, _ = rank(_rung({0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}), search, 3)
    assert {one.setting for one in on} == {1, 2, 3}


def test_of_level_settings_the_earlier_goes_on() -> None:
    on, _ = rank(_rung(dict.fromkeys(range(4), 0.5)), GRID, 2)
    assert {one.setting for one in on} == {0, 1}


def test_the_choice_is_made_among_those_at_the_end_and_remembers_the_others() -> None:
    early = _rung({0: 0.9, 2: 0.1})  # after one epoch better than anything at the end, and still not chosen
    ended = _rung({1: 0.3, 3: 0.4}, epochs=3)
    planned = [(one.setting, one.settings, one.fold) for one in ended]
    choice = choose(ended, GRID, planned, early)
    assert choice.settings == ended[2].settings
    assert choice.mean == pytest.approx(0.9)
    assert [(one.settings, one.epochs, one.planned) for one in choice.stopped] == [
        (early[0].settings, 1, 3), (early[2].settings, 1, 3),
    ]  # fmt: skip
    assert choice.stopped[0].mean == pytest.approx(1.4)
    assert choice.trials == len(choice.runs) == 8


def test_a_trial_that_was_stopped_early_is_never_compared() -> None:
    ended = _rung({1: 0.3, 3: 0.4}, epochs=3)
    planned = [(one.setting, one.settings, one.fold) for one in ended]
    with pytest.raises(TrainingError, match="2 of 4 trials are missing"):
        choose([*ended[:2], *_rung({3: 0.9})], GRID, planned)
