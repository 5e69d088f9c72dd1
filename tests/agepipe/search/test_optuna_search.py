"""The study: what it proposes follows from its seed and what it was told, through kills and lost files."""

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
from agepipe.search.records import Fold, Trial

pytest.importorskip("optuna", reason="needs agepipe[optuna]")

from agepipe.search.optuna_search import Planned, study

SEARCH = SearchSettings(
    strategy="optuna", trials=13, folds=2, seed=4, metric="mae",
    space={"lr": Span(low=1e-4, high=0.1, log=True), "batch": Span(low=8, high=32), "head": ("linear", "v1")},
)  # fmt: skip

KILLED = """
import os, signal, sys
from pathlib import Path
from test_optuna_search import SEARCH, judged
from agepipe.config.stages import LearnSettings
from agepipe.config.runtime import Runtime
from agepipe.search.optuna_search import study
from agepipe.data.records import Rows
rows = Rows.model_validate_json(sys.argv[2])
with study(rows, LearnSettings(), SEARCH, Runtime(workspace=Path(sys.argv[1]))) as proposals:
    for _ in range(11):
        batch = proposals.proposed()
        proposals.tell(batch, judged(batch))
    proposals.proposed()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def judged(planned: list[Planned]) -> list[Trial]:
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
        planned = proposals.known()
        while batch := proposals.proposed():
            proposals.tell(batch, judged(batch))
            planned += batch
    return [settings for _, settings, fold in planned if fold.index == 0]


def test_each_proposal_lies_in_the_space_and_is_wanted_on_every_fold(rows: Rows, runtime: Runtime) -> None:
    with study(rows, LearnSettings(), SEARCH, runtime) as proposals:
        batch = proposals.proposed()
        assert [(number, fold) for number, _, fold in batch] == [(0, Fold(index=i, count=2, seed=4)) for i in (0, 1)]
        assert proposals.proposed() == batch, "what is not judged yet is wanted still"
    for settings in to_the_end(rows, SEARCH, runtime):
        assert 1e-4 <= settings["lr"] <= 0.1
        assert isinstance(settings["batch"], int)
        assert 8 <= settings["batch"] <= 32
        assert settings["head"] in ("linear", "v1")


def test_what_is_proposed_follows_from_the_seed_and_the_results(rows: Rows, runtime: Runtime, tmp_path: Path) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    assert len(first) == 13
    assert len({str(one) for one in first}) == 13
    other = runtime.model_copy(update={"workspace": tmp_path / "other"})
    assert to_the_end(rows, SEARCH, other) == first
    assert to_the_end(rows, SEARCH.model_copy(update={"seed": 5}), other) != first


def test_it_learns(rows: Rows, runtime: Runtime) -> None:
    found = to_the_end(rows, SEARCH.model_copy(update={"trials": 40}), runtime)
    errors = [
        one.metrics["mae"] for one in judged([(0, settings, Fold(index=0, count=2, seed=4)) for settings in found])
    ]
    assert sum(errors[20:]) < 0.8 * sum(errors[:20])


def test_a_killed_study_goes_on_as_if_it_had_not_been(rows: Rows, runtime: Runtime, tmp_path: Path) -> None:
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
        assert len(proposals.known()) == 22
        assert proposals.proposed()[0][0] == 11
    assert to_the_end(rows, SEARCH, runtime) == whole


def test_a_finished_study_goes_on_with_more_trials(rows: Rows, runtime: Runtime) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    assert to_the_end(rows, SEARCH, runtime) == first
    more = to_the_end(rows, SEARCH.model_copy(update={"trials": 15}), runtime)
    assert (len(more), more[:13]) == (15, first)
    assert to_the_end(rows, SEARCH, runtime) == first
    assert len(list((runtime.workspace / "studies").glob("*.db"))) == 1


def test_a_path_with_letters_that_mean_something_in_an_address_is_no_other_file(
    rows: Rows, runtime: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "faces? #1 50%25"
    with study(rows, LearnSettings(), SEARCH, runtime.model_copy(update={"workspace": folder})) as proposals:
        proposals.proposed()
    (kept,) = (folder / "studies").glob("*.db")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("faces")} == {folder.name}


def test_those_of_a_batch_are_proposed_together(rows: Rows, runtime: Runtime) -> None:
    search = SEARCH.model_copy(update={"together": 4})
    sizes = []
    with study(rows, LearnSettings(), search, runtime) as proposals:
        while batch := proposals.proposed():
            sizes.append(len(batch) // search.folds)
            proposals.tell(batch, judged(batch))
    assert sizes == [4, 4, 4, 1]


def test_refresh_begins_anew(rows: Rows, runtime: Runtime) -> None:
    first = to_the_end(rows, SEARCH, runtime)
    anew = runtime.model_copy(update={"refresh": ("search",)})
    with study(rows, LearnSettings(), SEARCH, anew) as proposals:
        assert proposals.known() == []
        assert proposals.proposed()[0][1] == first[0]


def test_a_setting_without_a_trial_on_some_fold_has_failed_and_is_out_of_the_race(rows: Rows, runtime: Runtime) -> None:
    search = SEARCH.model_copy(update={"trials": 3})
    with study(rows, LearnSettings(), search, runtime) as proposals:
        first = proposals.proposed()
        assert proposals.tell(first, judged(first)[:1]) == []
        second = proposals.proposed()
        assert proposals.tell(second, judged(second)) == judged(second)
    with study(rows, LearnSettings(), search, runtime) as proposals:
        assert proposals.known() == second
        assert {number for number, _, _ in proposals.proposed()} == {2}
