"""The choice among settings: by the mean over folds, of complete settings whose trials ran to the end."""

from pathlib import Path

import pytest

from agepipe.config.stages import SearchSettings
from agepipe.core.errors import TrainingError
from agepipe.search.choice import choose
from agepipe.search.records import Fold, Trial
from agepipe.search.strategies import plan

GRID = SearchSettings(grid={"lr": (0.01, 0.02), "head": ("v1", "linear")}, folds=2)


def _trial(setting: int, index: int, score: float, tmp_path: Path, **changes: object) -> Trial:
    settings = plan(GRID)[2 * setting][1]
    values = {
        "digest": f"{setting}{index}", "settings": settings, "setting": setting,
        "fold": Fold(index=index, count=2, seed=30), "metrics": {"macro_recall": score, "mae": 9 - score},
        "seconds": 1.0, "epochs": 3, "planned": 3, "folder": tmp_path, "parameters": 100, "run": f"run{setting}{index}",
    }  # fmt: skip
    return Trial(**{**values, **changes})


def _grid(tmp_path: Path, means: list[float], **changes: list[object]) -> list[Trial]:
    def own(place: int) -> dict[str, object]:
        return {name: values[place] for name, values in changes.items()}

    return [
        _trial(place, index, mean + 0.1 * (2 * index - 1), tmp_path, **own(place))
        for place, mean in enumerate(means)
        for index in range(2)
    ]


def test_the_best_mean_over_folds_wins(tmp_path: Path) -> None:
    choice = choose(_grid(tmp_path, [0.3, 0.5, 0.6, 0.4]), GRID)
    assert choice.settings == {"lr": 0.02, "head": "v1"}
    assert choice.mean == pytest.approx(0.6)
    assert choice.deviation == pytest.approx(0.1 * 2**0.5)
    assert choice.trials == len(choice.runs) == 8
    lower = GRID.model_copy(update={"metric": "mae"})
    assert choose(_grid(tmp_path, [0.3, 0.5, 0.6, 0.4]), lower).settings == choice.settings


@pytest.mark.parametrize(
    ("changes", "winner"),
    [
        ({"parameters": [9, 5, 7, 5]}, 1),
        ({"epochs": [9, 5, 4, 4]}, 2),
        ({}, 0),
        ({"seconds": [9.0, 8.0, 7.0, 1.0]}, 0),
    ],
)
def test_ties_go_to_the_cheaper_setting_and_never_to_the_faster(tmp_path: Path, changes: dict, winner: int) -> None:
    trials = _grid(tmp_path, [0.5] * 4, **changes)
    assert choose(trials[::-1], GRID).settings == trials[2 * winner].settings


def test_the_choice_does_not_depend_on_the_order_of_the_trials(tmp_path: Path) -> None:
    trials = _grid(tmp_path, [0.3, 0.5, 0.6, 0.4])
    assert choose(trials, GRID).digest == choose(trials[::-1], GRID).digest


def test_a_setting_without_a_trial_on_some_fold_is_left_out(tmp_path: Path) -> None:
    trials = _grid(tmp_path, [0.3, 0.5, 0.6, 0.4])
    without = [one for one in trials if one.id != (2, 1)]
    choice = choose(without, GRID)
    assert choice == choose([one for one in trials if one.setting != 2], GRID)
    assert choice.settings == trials[2].settings
    assert choice.trials == 6


def test_no_complete_setting_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        choose([one for one in _grid(tmp_path, [0.3, 0.5, 0.6, 0.4]) if one.fold.index == 0], GRID)


def test_stopped_trials_are_recorded_and_not_compared(tmp_path: Path) -> None:
    trials = _grid(tmp_path, [0.9, 0.3, 0.1, 0.4], epochs=[1, 3, 1, 3])
    early = [one for one in trials if one.epochs == 1]  # after one epoch better than any finished one, and not chosen
    finished = [one for one in trials if one.epochs == 3]
    choice = choose(finished, GRID, early)
    assert (choice.settings, choice.mean) == (finished[2].settings, pytest.approx(0.4))
    assert [(one.settings, one.epochs, one.planned) for one in choice.stopped] == [
        (early[0].settings, 1, 3), (early[2].settings, 1, 3),
    ]  # fmt: skip
    assert choice.stopped[0].mean == pytest.approx(0.9)
    assert choice.trials == len(choice.runs) == 8


def test_a_trial_that_did_not_run_to_the_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="2 of 8 trials"):
        choose(_grid(tmp_path, [0.3, 0.5, 0.6, 0.4], epochs=[3, 3, 3, 1]), GRID)


@pytest.mark.parametrize(("grid", "settings"), [({}, {}), ({"lr": (0.03,)}, {"lr": 0.03})])
def test_a_single_setting_is_chosen_without_a_trial(grid: dict, settings: dict) -> None:
    choice = choose([], SearchSettings(grid=grid))
    assert (choice.settings, choice.trials, choice.mean, choice.deviation) == (settings, 0, 0.0, 0.0)
