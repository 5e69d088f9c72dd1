"""The study: its proposals follow from its seed and the results, also after it was killed or its file lost."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agepipe.config.runtime import Runtime
from agepipe.config.search_space import Span
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.data.records import Rows
from agepipe.search.records import Fold, Request, Trial, TrialId, TrialSpec
from agepipe.search.strategies import run
from agepipe.training.records import Choice

pytest.importorskip("optuna", reason="needs agepipe[optuna]")

from agepipe.search.optuna_search import optuna

SEARCH = SearchSettings(
    strategy="optuna", trials=13, folds=2, seed=4, metric="mae",
    space={"lr": Span(low=1e-4, high=0.1, log=True), "batch": Span(low=8, high=32), "head": ("linear", "v1")},
)  # fmt: skip

KILLED = """
import os, signal, sys
from pathlib import Path
from test_optuna_search import SEARCH, Trainer
from agepipe.config.stages import LearnSettings
from agepipe.config.runtime import Runtime
from agepipe.data.records import Rows
from agepipe.search.optuna_search import optuna
from agepipe.search.strategies import run
rows, train = Rows.model_validate_json(sys.argv[2]), Trainer()
def kill(request):
    if len(train.requests) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(request)
run(optuna(rows, LearnSettings(), SEARCH, Runtime(workspace=Path(sys.argv[1]))), kill)
"""


def trained(specs: Sequence[TrialSpec]) -> list[Trial]:
    """Trials whose error is a smooth function of the setting, least at lr = 0.003 and batch = 20."""
    from math import log

    return [
        Trial(
            digest=f"{number}{fold.index}", settings=settings, setting=number, seconds=1.0, epochs=3, planned=3,
            fold=fold, folder=Path("trials"),
            metrics={"mae": abs(log(settings["lr"] / 0.003)) + abs(settings["batch"] - 20) / 9 + fold.index},
        )
        for number, settings, fold in specs
    ]  # fmt: skip


class Trainer:
    """Trains with made-up results, and remembers what was requested; trials of `diverging` have none."""

    def __init__(self, *diverging: TrialId) -> None:
        self._diverging = diverging
        self.requests: list[Sequence[TrialSpec]] = []

    def __call__(self, request: Request) -> list[Trial]:
        self.requests.append(request.specs)
        return [one for one in trained(request.specs) if one.id not in self._diverging]


def searched(rows: Rows, search: SearchSettings, runtime: Runtime, train: Trainer | None = None) -> Choice:
    return run(optuna(rows, LearnSettings(), search, runtime), train or Trainer())


def to_the_end(rows: Rows, search: SearchSettings, runtime: Runtime) -> list[dict[str, Any]]:
    """Everything that was proposed, in order."""
    train = Trainer()
    searched(rows, search, runtime, train)
    return [spec.settings for specs in train.requests for spec in specs if spec.fold.index == 0]


def test_each_proposal_is_in_the_space_and_is_trained_on_every_fold(rows: Rows, runtime: Runtime) -> None:
    train = Trainer()
    searched(rows, SEARCH, runtime, train)
    assert train.requests[0] == [], "a new study has no results"
    for number, specs in enumerate(train.requests[1:]):
        assert [(spec.setting, spec.fold) for spec in specs] == [
            (number, Fold(index=index, count=2, seed=4)) for index in (0, 1)
        ]
        settings = specs[0].settings
        assert 1e-4 <= settings["lr"] <= 0.1
        assert isinstance(settings["batch"], int)
        assert 8 <= settings["batch"] <= 32
        assert settings["head"] in ("linear", "v1")


def test_proposals_follow_from_the_seed_and_the_results(rows: Rows, runtime: Runtime, tmp_path: Path) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    assert len(first) == 13
    assert len({str(one) for one in first}) == 13
    other = runtime.model_copy(update={"workspace": tmp_path / "other"})
    assert to_the_end(rows, SEARCH, other) == first
    assert to_the_end(rows, SEARCH.model_copy(update={"seed": 5}), other) != first


def test_later_proposals_are_better(rows: Rows, runtime: Runtime) -> None:
    found = to_the_end(rows, SEARCH.model_copy(update={"trials": 40}), runtime)
    fold = Fold(index=0, count=2, seed=4)
    errors = [one.metrics["mae"] for one in trained([TrialSpec(0, settings, fold) for settings in found])]
    assert sum(errors[20:]) < 0.8 * sum(errors[:20])


@pytest.mark.slow
def test_a_killed_study_continues_with_the_same_proposals(rows: Rows, runtime: Runtime, tmp_path: Path) -> None:
    unbroken = to_the_end(rows, SEARCH, runtime.model_copy(update={"workspace": tmp_path / "unbroken"}))
    words = [str(runtime.workspace), rows.model_dump_json()]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    train = Trainer()
    searched(rows, SEARCH, runtime, train)
    assert len(train.requests[0]) == 22, "eleven settings have results"
    assert train.requests[1][0].setting == 11, "what was proposed without a result is proposed again"
    assert [specs[0].settings for specs in train.requests[1:]] == unbroken[11:]


def test_a_finished_study_continues_with_more_trials(rows: Rows, runtime: Runtime) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    assert to_the_end(rows, SEARCH, runtime) == first
    more = to_the_end(rows, SEARCH.model_copy(update={"trials": 15}), runtime)
    assert (len(more), more[:13]) == (15, first)
    assert to_the_end(rows, SEARCH, runtime) == first
    assert len(list((runtime.workspace / "studies").glob("*.db"))) == 1


def test_a_path_with_characters_that_have_a_meaning_in_a_url_is_the_same_file(
    rows: Rows, runtime: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "faces? #1 50%25"
    searched(rows, SEARCH.model_copy(update={"trials": 2}), runtime.model_copy(update={"workspace": folder}))
    (file,) = (folder / "studies").glob("*.db")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (2,)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("faces")} == {folder.name}


def test_the_settings_of_a_batch_are_proposed_together(rows: Rows, runtime: Runtime) -> None:
    train = Trainer()
    searched(rows, SEARCH.model_copy(update={"together": 4}), runtime, train)
    assert [len(specs) // SEARCH.folds for specs in train.requests] == [0, 4, 4, 4, 1]


def test_refresh_starts_a_new_study(rows: Rows, runtime: Runtime) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    train = Trainer()
    searched(rows, SEARCH, runtime.model_copy(update={"refresh": ("search",)}), train)
    assert train.requests[0] == []
    assert train.requests[1][0].settings == first[0]


def test_a_setting_without_a_trial_on_every_fold_has_failed_and_is_not_trained_again(
    rows: Rows, runtime: Runtime
) -> None:
    search = SEARCH.model_copy(update={"trials": 5, "together": 2})
    train = Trainer((2, 1))
    choice = searched(rows, search, runtime, train)
    assert [len(specs) for specs in train.requests] == [0, 4, 4, 2]
    results = trained(
        [spec for specs in train.requests for spec in specs if spec.setting != 2 and spec.fold.index == 0]
    )
    assert choice.mean == pytest.approx(min(one.metrics["mae"] for one in results) + 0.5)
    assert choice.trials == 8

    train.requests.clear()
    assert searched(rows, search, runtime, train) == choice
    assert [{spec.setting for spec in specs} for specs in train.requests] == [{0, 1, 3, 4}]


PRUNED = SEARCH.model_copy(update={"rungs": (1, 2)})


class PausingTrainer(Trainer):
    """Trains as `Trainer` does, also only up to a rung; remembers requests as settings and the epoch of the pause."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.asked: list[tuple[set[int], int | None]] = []
        self.stopped: set[int] = set()
        self._most = most

    def __call__(self, request: Request) -> list[Trial]:
        if len(self.asked) == self._most:
            raise KeyboardInterrupt
        self.asked.append(({spec.setting for spec in request.specs}, request.until))
        self.stopped |= {one.setting for one in request.stop}
        return [one.model_copy(update={"epochs": request.until or 3}) for one in super().__call__(request)]


def test_a_proposal_that_is_worse_than_the_median_stops_at_a_rung(rows: Rows, runtime: Runtime) -> None:
    train = PausingTrainer()
    choice = searched(rows, PRUNED, runtime, train)
    finished = {setting for settings, until in train.asked[3:] for setting in settings if until is None}
    assert set(range(5)) <= finished, "none stops before five are finished"
    assert len(choice.stopped) == 13 - len(finished) > 0
    assert train.stopped == set(range(13)) - finished
    assert {one.epochs for one in choice.stopped} <= {1, 2}
    results = {spec.setting: spec for specs in train.requests for spec in specs if spec.fold.index == 0}
    errors = {number: trained([spec])[0].metrics["mae"] for number, spec in results.items()}
    assert choice.settings == results[min(finished, key=errors.__getitem__)].settings
    worst = max(errors, key=errors.__getitem__)
    assert worst in train.stopped or worst < 5


def test_a_search_again_stops_the_same_and_proposes_nothing_new(rows: Rows, runtime: Runtime) -> None:
    first, again = PausingTrainer(), PausingTrainer()
    choice = searched(rows, PRUNED, runtime, first)
    assert searched(rows, PRUNED, runtime, again) == choice
    assert [until for _, until in again.asked] == [None, 1, 2]
    assert set.union(*(settings for settings, _ in again.asked)) == set(range(13))


@pytest.mark.parametrize("most", [12, 18, 23])
def test_an_interrupted_search_stops_the_same(rows: Rows, runtime: Runtime, tmp_path: Path, most: int) -> None:
    search = PRUNED.model_copy(update={"together": 2})
    other = runtime.model_copy(update={"workspace": tmp_path / "other"})
    expected = searched(rows, search, runtime, PausingTrainer())
    with pytest.raises(KeyboardInterrupt):
        searched(rows, search, other, PausingTrainer(most))
    assert searched(rows, search, other, PausingTrainer()) == expected
