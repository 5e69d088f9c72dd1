"""Trials that pause: a pause changes nothing of the result, and a stopped trial leaves no checkpoint."""

from pathlib import Path

import polars as pl
import pytest
from folders import tried

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings
from agepipe.core.artifacts import read_manifest, write_manifest
from agepipe.data.records import Rows
from agepipe.search.records import Fold, Trial
from agepipe.search.trial import PAUSED, forget
from agepipe.training.job import EpochEvent

FOLD = Fold(index=1, count=3, seed=30)


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
        paused = rungs[-1] if rungs else None
        rungs.append(tried(rows, longer, {}, 0, FOLD, here, seen.append, until=until, paused=paused))
    assert [(one.epochs, one.planned, one.finished) for one in rungs] == [(1, 3, False), (2, 3, False)]
    last = tried(rows, longer, {}, 0, FOLD, here, seen.append, paused=rungs[-1])
    assert [event.epoch for event in seen] == [1, 2, 3], "an epoch was trained twice"
    assert (last.digest, last.metrics, last.finished) == (unbroken.digest, unbroken.metrics, True)
    curves = [pl.read_parquet(one.folder / "curves.parquet").drop("seconds") for one in (last, unbroken)]
    assert curves[0].equals(curves[1])
    assert len({one.digest for one in (*rungs, last)}) == 3

    # a finished trial has the figures of its first epochs, without training
    seen.clear()
    again = tried(rows, longer, {}, 0, FOLD, here, seen.append, until=2, finished=unbroken)
    assert (seen, again.metrics, again.digest) == ([], rungs[1].metrics, rungs[1].digest)


def test_a_stopped_trial_leaves_figures_and_no_checkpoint(rows: Rows, longer: LearnSettings, here: Runtime) -> None:
    paused = tried(rows, longer, {}, 0, FOLD, here, until=1)
    write_manifest(paused.folder, "search", longer, {}, {})
    assert list((paused.folder / PAUSED).iterdir())
    forget([paused])
    assert not list((paused.folder / PAUSED).iterdir())
    assert read_manifest(paused.folder) is not None, "the stage is still finished"
    assert (paused.folder / "curves.parquet").exists()

    # a search that continues it after all trains it from the start
    seen: list[EpochEvent] = []
    tried(rows, longer, {}, 0, FOLD, here, seen.append, paused=paused)
    assert [event.epoch for event in seen] == [1, 2, 3]
