"""The study: its proposals follow from its seed and the results, also after it was killed or its file lost."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agepipe.config.runtime import Runtime
from agepipe.config.search_space import Span
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.data.records import Rows
from agepipe.search.records import Fold, Request, Trial, TrialSpec
from agepipe.search.strategies import run

pytest.importorskip("optuna", reason="needs agepipe[optuna]")

from agepipe.search.optuna_search import optuna, study

SEARCH = SearchSettings(
    strategy="optuna", trials=13, folds=2, seed=4, metric="mae",
    space={"lr": Span(low=1e-4, high=0.1, log=True), "batch": Span(low=8, high=32), "head": ("linear", "v1")},
)  # fmt: skip

KILLED = """
import os, signal, sys
from pathlib import Path
from test_optuna_search import SEARCH, trained
from agepipe.config.stages import LearnSettings
from agepipe.config.runtime import Runtime
from agepipe.search.optuna_search import study
from agepipe.data.records import Rows
rows = Rows.model_validate_json(sys.argv[2])
with study(rows, LearnSettings(), SEARCH, Runtime(workspace=Path(sys.argv[1]))) as proposals:
    for _ in range(11):
        batch = proposals.propose()
        proposals.record(batch, trained(batch))
    proposals.propose()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def trained(planned: list[TrialSpec]) -> list[Trial]:
    """Trials whose error is a smooth function of the setting, least at lr = 0.003 and batch = 20."""
    from math import log

    return [
        Trial(
            digest=f"{number}{fold.index}", settings=settings, setting=number, seconds=1.0, epochs=3, planned=3,
            fold=fold, folder=Path("trials"),
            metrics={"mae": abs(log(settings["lr"] / 0.003)) + abs(settings["batch"] - 20) / 9 + fold.index},
        )
        for number, settings, fold in planned
    ]  # fmt: skip


def to_the_end(rows: Rows, search: SearchSettings, runtime: Runtime) -> list[dict[str, object]]:
    """Everything that was proposed, in order."""
    with study(rows, LearnSettings(), search, runtime) as proposals:
        planned = proposals.evaluated()
        while batch := proposals.propose():
            proposals.record(batch, trained(batch))
            planned += batch
    return [settings for _, settings, fold in planned if fold.index == 0]


def test_each_proposal_lies_in_the_space_and_is_trained_on_every_fold(rows: Rows, runtime: Runtime) -> None:
    with study(rows, LearnSettings(), SEARCH, runtime) as proposals:
        batch = proposals.propose()
        assert [(number, fold) for number, _, fold in batch] == [(0, Fold(index=i, count=2, seed=4)) for i in (0, 1)]
        assert proposals.propose() == batch, "a setting without a result is proposed again"
    for settings in to_the_end(rows, SEARCH, runtime):
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
    errors = [
        one.metrics["mae"] for one in trained([(0, settings, Fold(index=0, count=2, seed=4)) for settings in found])
    ]
    assert sum(errors[20:]) < 0.8 * sum(errors[:20])


def test_a_killed_study_continues_with_the_same_proposals(rows: Rows, runtime: Runtime, tmp_path: Path) -> None:
    whole = to_the_end(rows, SEARCH, runtime.model_copy(update={"workspace": tmp_path / "whole"}))
    words = [str(runtime.workspace), rows.model_dump_json()]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with study(rows, LearnSettings(), SEARCH, runtime) as proposals:
        assert len(proposals.evaluated()) == 22
        assert proposals.propose()[0][0] == 11
    assert to_the_end(rows, SEARCH, runtime) == whole


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
    with study(rows, LearnSettings(), SEARCH, runtime.model_copy(update={"workspace": folder})) as proposals:
        proposals.propose()
    (kept,) = (folder / "studies").glob("*.db")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("faces")} == {folder.name}


def test_the_settings_of_a_batch_are_proposed_together(rows: Rows, runtime: Runtime) -> None:
    search = SEARCH.model_copy(update={"together": 4})
    sizes = []
    with study(rows, LearnSettings(), search, runtime) as proposals:
        while batch := proposals.propose():
            sizes.append(len(batch) // search.folds)
            proposals.record(batch, trained(batch))
    assert sizes == [4, 4, 4, 1]


def test_refresh_starts_a_new_study(rows: Rows, runtime: Runtime) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    refreshed = runtime.model_copy(update={"refresh": ("search",)})
    with study(rows, LearnSettings(), SEARCH, refreshed) as proposals:
        assert proposals.evaluated() == []
        assert proposals.propose()[0][1] == first[0]


def test_a_setting_without_a_trial_on_some_fold_has_failed(rows: Rows, runtime: Runtime) -> None:
    search = SEARCH.model_copy(update={"trials": 3})
    with study(rows, LearnSettings(), search, runtime) as proposals:
        first = proposals.propose()
        assert proposals.record(first, trained(first)[:1]) == []
        second = proposals.propose()
        assert proposals.record(second, trained(second)) == trained(second)
    with study(rows, LearnSettings(), search, runtime) as proposals:
        assert proposals.evaluated() == second
        assert {number for number, _, _ in proposals.propose()} == {2}


def test_the_strategy_trains_batch_after_batch_and_chooses_the_best(rows: Rows, runtime: Runtime) -> None:
    requests: list[Request] = []

    def train(request: Request) -> list[Trial]:
        requests.append(request)
        return [one for one in trained(request.specs) if one.id != (2, 1)]  # the third setting diverges on a fold

    search = SEARCH.model_copy(update={"trials": 5, "together": 2})
    choice = run(optuna(rows, LearnSettings(), search, runtime), train)
    assert [len(request.specs) for request in requests] == [0, 4, 4, 2]
    assert all(request.until is None and not request.stop for request in requests)
    assert choice.trials == 8
    results = trained([spec for request in requests for spec in request.specs if spec.setting != 2])
    assert choice.mean == pytest.approx(min(a.metrics["mae"] + 0.5 for a in results if a.fold.index == 0))

    requests.clear()
    assert run(optuna(rows, LearnSettings(), search, runtime), train) == choice
    assert [len(request.specs) for request in requests] == [8], "a finished study proposes nothing"
