"""The state of a search, computed from its results and from the epochs that its trials have written."""

from contextlib import closing
from pathlib import Path

import pytest

from agepipe.config.search_space import Span
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.search.progress import SearchProgress, SearchState, trial_progress, write_epoch
from agepipe.search.records import Fold, Request, Trial, TrialId, on_all_folds
from agepipe.search.strategies import plan

LEARN = LearnSettings(epochs=4)
GRID = SearchSettings(grid={"lr": (0.01, 0.02, 0.03)}, folds=2)
HALVING = GRID.model_copy(update={"strategy": "halving", "rungs": (1,)})
OPTUNA = SearchSettings(strategy="optuna", space={"lr": Span(low=0.01, high=0.1)}, trials=4, folds=2, metric="mae")


class Watched(SearchProgress):
    """The progress of a search whose trials write into `folder`, with the states that it has shown."""

    def __init__(self, search: SearchSettings, folder: Path) -> None:
        self.shown: list[SearchState] = []
        self.folder, self.request = folder / "progress", Request([])
        super().__init__(search, LEARN, self.folder, self.shown.append)

    def begin(self, request: Request) -> None:
        self.request = request
        super().begin(request)

    def reach(self, epochs: dict[TrialId, int], scores: dict[TrialId, float] | None = None) -> SearchState:
        """The state once the trials have written these epochs and have these results."""
        for trial, epoch in epochs.items():
            write_epoch(self.folder, trial, epoch)
        results = {trial: evaluated(*trial, score) for trial, score in (scores or {}).items()}
        self.update([results.get(spec.id) for spec in self.request.specs])
        return self.shown[-1]


def evaluated(setting: int, fold: int, score: float) -> Trial:
    return Trial(
        digest=f"{setting}{fold}", settings={}, setting=setting, fold=Fold(index=fold, count=2, seed=30), seconds=1.0,
        metrics={"macro_recall": score, "mae": score}, epochs=4, planned=4, folder=Path("trials"),
    )  # fmt: skip


def test_it_shows_the_results_the_running_trials_and_the_best_setting(tmp_path: Path) -> None:
    progress = Watched(GRID, tmp_path)
    progress.begin(Request(plan(GRID)))
    epochs = {(0, 0): 4, (0, 1): 4, (1, 0): 4, (1, 1): 2, (7, 0): 1}
    now = progress.reach(epochs, {(0, 0): 0.2, (0, 1): 0.4, (1, 0): 0.9})
    assert (now.done, now.running, now.trials, now.finished) == (3, 1, 6, False)
    assert now.best is now.settings[0]
    assert now.best.settings == {"lr": 0.01}, "a setting with a running fold is not the best yet"
    assert now.best.score == pytest.approx(0.3)
    assert (now.settings[1].scores, now.settings[1].epochs) == ((0.9,), (2,))


def test_the_time_remaining_is_estimated_from_the_epochs_of_this_run_without_cached_trials(tmp_path: Path) -> None:
    progress = Watched(GRID, tmp_path)
    progress.begin(Request(plan(GRID)))
    progress.reach({}, {(0, 0): 0.2, (0, 1): 0.4})  # cached: they have written no epoch
    assert progress.state(5.0).seconds_left is None
    assert progress.state(5.0).share == pytest.approx(2 / 6)
    progress.reach({(1, 0): 3, (1, 1): 1})
    assert progress.state(10.0).seconds_left == pytest.approx(10.0 * 12 / 4)
    assert progress.state(10.0).share == pytest.approx(12 / 24)


def test_a_lower_error_is_better(tmp_path: Path) -> None:
    progress = Watched(GRID.model_copy(update={"metric": "mae"}), tmp_path)
    progress.begin(Request(plan(GRID)))
    now = progress.reach({}, {(setting, fold): 5.0 - setting for setting in range(3) for fold in range(2)})
    assert [one.score for one in now.settings] == [3.0, 4.0, 5.0]
    assert now.finished


def test_each_rung_is_shown_alone_and_the_share_is_that_of_the_whole_search(tmp_path: Path) -> None:
    progress = Watched(HALVING, tmp_path)
    everything = 6 * 1 + 4 * 3
    progress.begin(Request(plan(HALVING), until=1))
    ids = [(setting, fold) for setting in range(3) for fold in range(2)]
    progress.reach(dict.fromkeys(ids, 1), dict.fromkeys(ids, 0.5))
    assert progress.state(6.0).seconds_left == pytest.approx(12.0)
    progress.begin(Request(plan(HALVING)[:4]))
    now = progress.reach({})
    assert (now.until, now.done, now.running, now.trials, now.best) == (4, 0, 0, 4, None)
    progress.reach({(0, 0): 3})
    assert progress.state(8.0).seconds_left == pytest.approx(8.0 * 10 / 8)
    assert progress.state(8.0).share == pytest.approx(8 / everything)


def test_batches_of_proposals_are_shown_together(tmp_path: Path) -> None:
    progress = Watched(OPTUNA, tmp_path)
    progress.begin(Request([]))
    for number in range(4):
        progress.begin(Request(on_all_folds(number, {"lr": 0.02 + number / 100}, OPTUNA)))
        now = progress.reach({}, {(number, fold): 5.0 for fold in range(2)})
        assert (now.done, now.trials, now.finished) == (2 * number + 2, 8, number == 3)


def test_a_search_without_trials_is_done(tmp_path: Path) -> None:
    progress = Watched(SearchSettings(), tmp_path)
    progress.begin(Request([]))
    progress.end()
    assert (progress.shown[-1].share, progress.shown[-1].settings) == (1.0, ())


def test_a_trial_that_diverged_is_done_and_has_no_score(tmp_path: Path) -> None:
    progress = Watched(OPTUNA.model_copy(update={"trials": 2}), tmp_path)
    for number in range(2):
        progress.begin(Request(on_all_folds(number, {"lr": 0.02 + number / 100}, OPTUNA)))
        epochs = {(number, fold): 1 + 3 * number for fold in range(2)}
        progress.reach(epochs, dict.fromkeys(epochs, 5.0) if number else {})
        progress.end()
    now = progress.shown[-1]
    assert (now.finished, now.running, now.share) == (True, 0, 1.0)
    assert now.best
    assert now.best.settings == {"lr": pytest.approx(0.03)}
    assert now.settings[1].score is None


def test_the_epochs_of_a_trial_reach_the_state_and_its_files_are_removed(tmp_path: Path) -> None:
    progress = Watched(GRID, tmp_path)
    with closing(progress):
        progress.begin(Request(plan(GRID)))
        report = trial_progress(progress.folder, (1, 0), "lr=0.02 fold 0", start=1)
        first = progress.reach({})
        report(2, 4)
        second = progress.reach({})
    assert [(state.settings[1].epochs, state.running) for state in (first, second)] == [((1,), 1), ((2,), 1)]
    assert not progress.folder.exists()
