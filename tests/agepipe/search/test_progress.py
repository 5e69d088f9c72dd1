from pathlib import Path

import pytest

from agepipe.config.search_space import Span
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.search.progress import Scoreboard, rows_of
from agepipe.search.records import Fold, Trial
from agepipe.search.trial import on_all_folds, plan

LEARN = LearnSettings(epochs=4)
GRID = SearchSettings(grid={"lr": (0.01, 0.02, 0.03)}, folds=2)
HALVING = GRID.model_copy(update={"strategy": "halving", "rungs": (1,)})
OPTUNA = SearchSettings(strategy="optuna", space={"lr": Span(low=0.01, high=0.1)}, trials=4, folds=2, metric="mae")


def judged(setting: int, fold: int, score: float) -> Trial:
    return Trial(
        digest=f"{setting}{fold}", settings={}, setting=setting, fold=Fold(index=fold, count=2, seed=30), seconds=1.0,
        metrics={"macro_recall": score, "mae": score}, epochs=4, planned=4, folder=Path("trials"),
    )  # fmt: skip


def test_it_says_what_is_judged_what_trains_and_what_is_best() -> None:
    board = Scoreboard(GRID, LEARN)
    board.begin(plan(GRID), None)
    board.reached({(0, 0): 4, (0, 1): 4, (1, 0): 4, (1, 1): 2})
    board.finished([judged(0, 0, 0.2), judged(0, 1, 0.4), judged(1, 0, 0.9)])
    now = board.standing(30.0)
    assert (now.done, now.running, now.trials, now.over) == (3, 1, 6, False)
    assert now.best is now.lines[0]
    assert now.best.settings == {"lr": 0.01}, "a setting with a fold to go is not the best yet"
    assert now.best.score == pytest.approx(0.3)
    assert (now.lines[1].scores, now.lines[1].epochs) == ((0.9,), (2,))
    assert rows_of(now)[0] == {"lr": 0.01, "epochs": 4, "folds": "2/2", "macro_recall": pytest.approx(0.3)}


def test_the_time_left_follows_from_what_was_trained_and_not_from_what_was_found() -> None:
    board = Scoreboard(GRID, LEARN)
    board.begin(plan(GRID), None)
    board.finished([judged(0, 0, 0.2), judged(0, 1, 0.4)])  # found: nobody saw them train
    assert board.standing(5.0).seconds_left is None
    assert board.share() == pytest.approx(2 / 6)
    board.reached({(1, 0): 3, (1, 1): 1})
    now = board.standing(10.0)
    assert now.seconds_left == pytest.approx(10.0 * 12 / 4)
    assert board.share() == pytest.approx(12 / 24)


def test_a_lower_error_is_better() -> None:
    board = Scoreboard(GRID.model_copy(update={"metric": "mae"}), LEARN)
    board.begin(plan(GRID), None)
    board.finished([judged(place, fold, 5.0 - place) for place in range(3) for fold in range(2)])
    now = board.standing(1.0)
    assert [line.score for line in now.lines] == [3.0, 4.0, 5.0]
    assert now.over


def test_each_rung_is_a_round_of_its_own() -> None:
    board = Scoreboard(HALVING, LEARN)
    assert board.total() == 6 * 1 + 4 * 3
    assert board.begin(plan(HALVING), 1)
    board.reached({(place, fold): 1 for place in range(3) for fold in range(2)})
    board.finished([judged(place, fold, 0.5) for place in range(3) for fold in range(2)])
    assert board.standing(6.0).seconds_left == pytest.approx(12.0)
    assert board.begin(plan(HALVING)[:4], None)
    now = board.standing(6.0)
    assert (now.until, now.done, now.running, now.trials, now.best) == (4, 0, 0, 4, None)
    board.reached({(0, 0): 3})
    assert board.standing(8.0).seconds_left == pytest.approx(8.0 * 10 / 8)
    assert board.share() == pytest.approx(8 / 18)


def test_proposals_are_one_round_however_many_batches() -> None:
    board = Scoreboard(OPTUNA, LEARN)
    assert board.begin([], None)
    for number in range(4):
        assert not board.begin(on_all_folds(number, {"lr": 0.02 + number / 100}, OPTUNA), None)
        board.finished([judged(number, fold, 5.0) for fold in range(2)])
        now = board.standing(1.0)
        assert (now.done, now.trials, now.over) == (2 * number + 2, 8, number == 3)


def test_without_a_search_there_is_nothing_to_do() -> None:
    alone = SearchSettings()
    board = Scoreboard(alone, LEARN)
    board.begin(plan(alone), None)
    assert (board.share(), board.standing(1.0).lines) == (1.0, ())


def test_a_trial_that_failed_is_done_and_has_no_score() -> None:
    board = Scoreboard(OPTUNA.model_copy(update={"trials": 2}), LEARN)
    for number in range(2):
        board.begin(on_all_folds(number, {"lr": 0.02 + number / 100}, OPTUNA), None)
        board.reached({(number, fold): 1 + 3 * number for fold in range(2)})
        board.finished([judged(number, fold, 5.0) for fold in range(2 * number)])
        board.end()
    now = board.standing(1.0)
    assert (now.over, now.running, board.share()) == (True, 0, 1.0)
    assert now.best.settings == {"lr": pytest.approx(0.03)}
    assert now.lines[1].score is None
