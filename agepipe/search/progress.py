"""The progress of a search: each trial writes its epoch to a small file, and the search reads them all.

Trials may run in threads, in other processes or on other machines; all of them see the workspace. What a user sees of
the state that is computed here is in `flows/table.py`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from statistics import mean
from typing import Any

from agepipe.config.base import combinations
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, SearchSettings
from agepipe.core.progress import Progress
from agepipe.search.records import Request, Trial, TrialId

logger = logging.getLogger("agepipe.progress")


def in_words(settings: Mapping[str, Any]) -> str:
    """A setting in few words, numbers with four digits."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or "the only setting"


def trial_progress(folder: Path, trial: TrialId, name: str, start: int) -> Progress:
    """A progress callback of a trial, which writes and logs each epoch.

    Args:
        folder: where the trials of the search write their epochs.
        trial: which trial it is.
        name: what the log calls it.
        start: the epoch that it continues from.
    """
    write_epoch(folder, trial, start)

    def report(done: int, total: int, note: str = "") -> None:
        write_epoch(folder, trial, done)
        logger.info("%s: epoch %d of %d, %s", name, done, total, note)

    return report


def write_epoch(folder: Path, trial: TrialId, epoch: int) -> None:
    """Write the epoch that a trial has finished, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{trial[0]}-{trial[1]}"
    draft.write_text(str(epoch), encoding="utf-8")
    draft.replace(folder / draft.name[1:])


def read_epochs(folder: Path) -> dict[TrialId, int]:
    """The epochs that the trials have written."""
    found: dict[TrialId, int] = {}
    for path in folder.glob("[0-9]*-[0-9]*"):
        setting, _, fold = path.name.partition("-")
        with suppress(FileNotFoundError):  # removed by another search of this workspace, which has just ended
            found[int(setting), int(fold)] = int(path.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class SettingState:
    """The progress of one setting."""

    settings: Mapping[str, Any]
    folds: int
    scores: tuple[float, ...] = ()
    """The search's metric on each fold whose trial has ended."""
    epochs: tuple[int, ...] = ()
    """Finished epochs of each trial that is running."""

    @property
    def complete(self) -> bool:
        """Whether every fold has a score."""
        return len(self.scores) == self.folds

    @property
    def score(self) -> float | None:
        """Mean of the scores so far."""
        return mean(self.scores) if self.scores else None


@dataclass(frozen=True)
class SearchState:
    """The progress of a search at one moment; with halving, of the trials up to one rung."""

    metric: str
    until: int
    """Epoch at which these trials end or pause."""
    epochs: int
    """Epochs of a complete training."""
    settings: tuple[SettingState, ...]
    """The best first; those with a score on every fold before the others."""
    done: int
    """Trials that have a score or diverged."""
    running: int
    """Trials that are running."""
    trials: int
    """All trials."""
    share: float = 0.0
    """Part of the epochs of the whole search that is done, from 0 to 1; those of cached results count."""
    seconds_left: float | None = None
    """Estimated time remaining of the whole search; None while this run has trained no epoch."""

    @property
    def best(self) -> SettingState | None:
        """The best setting that has a score on every fold."""
        return self.settings[0] if self.settings and self.settings[0].complete else None

    @property
    def finished(self) -> bool:
        """Whether all trials have ended."""
        return self.done >= self.trials


class SearchProgress:
    """Computes the state of a search from the results and the epochs of its trials; `search_progress` makes one."""

    def __init__(
        self, search: SearchSettings, learn: LearnSettings, folder: Path, show: Callable[[SearchState], None]
    ) -> None:  # fmt: skip
        self._search, self._learn, self._folder, self._show = search, learn, folder, show
        self._start = time.monotonic()
        self._done: dict[TrialId, int] = {}
        self._trained = 0
        self._begin_round(0)

    def _begin_round(self, until: int) -> None:
        self._until = until
        self._settings: dict[TrialId, Mapping[str, Any]] = {}
        self._scores: dict[TrialId, float] = {}
        self._diverged: set[TrialId] = set()
        self._epochs: dict[TrialId, int] = {}
        rmtree(self._folder, ignore_errors=True)  # no trial of the new round is running yet

    def begin(self, request: Request) -> None:
        """Expect the trials of a request; one until another epoch than before begins a new round."""
        until = request.until or self._learn.epochs
        if until != self._until:
            self._begin_round(until)
        self._settings |= {spec.id: spec.settings for spec in request.specs}

    def update(self, trials: Sequence[Trial | None]) -> None:
        """Take the trials that have ended, read the epochs of the others, and show the state."""
        self._scores |= {one.id: one.metrics[self._search.metric] for one in trials if one is not None}
        self._epochs |= {trial: epoch for trial, epoch in read_epochs(self._folder).items() if trial in self._settings}
        self._count()
        self._show(self.state(time.monotonic() - self._start))

    def end(self) -> None:
        """No trial of the requests so far is running: those without a result have diverged."""
        self._diverged = set(self._settings) - set(self._scores)
        self.update(())

    def state(self, seconds: float) -> SearchState:
        """The state after `seconds` of the search."""
        search, done, total = self._search, sum(self._done.values()), self._total()
        running = {trial: epoch for trial, epoch in self._epochs.items() if not self._ended(trial)}
        return SearchState(
            metric=search.metric,
            until=self._until,
            epochs=self._learn.epochs,
            settings=self._setting_states(running),
            done=sum(map(self._ended, self._settings)),
            running=len(running),
            trials=search.trials * search.folds if search.strategy == "optuna" else len(self._settings),
            share=min(1.0, done / total) if total else 1.0,
            seconds_left=seconds * max(0, total - done) / self._trained if self._trained else None,
        )

    def _ended(self, trial: TrialId) -> bool:
        return trial in self._scores or trial in self._diverged

    def _count(self) -> None:
        """Count the new epochs of each trial; one that has written none was cached, and not trained in this run."""
        for trial in self._settings:
            epoch = self._until if self._ended(trial) else min(self._epochs.get(trial, 0), self._until)
            new = epoch - self._done.get(trial, 0)
            if new > 0:
                self._done[trial] = epoch
                self._trained += new if trial in self._epochs else 0

    def _setting_states(self, running: Mapping[TrialId, int]) -> tuple[SettingState, ...]:
        sign = 1 if self._search.metric in LOWER_IS_BETTER else -1
        states = [
            SettingState(settings, self._search.folds, _of(setting, self._scores), _of(setting, running))
            for setting, settings in {setting: settings for (setting, _), settings in self._settings.items()}.items()
        ]
        return tuple(sorted(states, key=lambda one: (not one.complete, sign * (one.score or 0.0))))

    def _total(self) -> int:
        """Epochs of the whole search."""
        folds, epochs = self._search.folds, self._learn.epochs
        if self._search.strategy == "optuna":
            return self._search.trials * folds * epochs
        if not self._search.trains:
            return 0
        count, before, total = len(combinations(self._search.grid)), 0, 0
        for until in (*self._search.rungs, epochs):
            total += count * folds * (until - before)
            count, before = self._search.kept(count), until
        return total


def _of(setting: int, values: Mapping[TrialId, Any]) -> tuple[Any, ...]:
    """The values of a setting's trials, in the order of its folds."""
    return tuple(value for (position, _), value in sorted(values.items()) if position == setting)


@contextmanager
def search_progress(
    search: SearchSettings, learn: LearnSettings, folder: Path, show: Callable[[SearchState], None]
) -> Iterator[SearchProgress]:  # fmt: skip
    """The progress of a search while the block runs.

    Args:
        search: strategy, folds and metric.
        learn: the epochs of a trial.
        folder: where the trials write their epochs; removed before and after.
        show: called with each new state.
    """
    try:
        yield SearchProgress(search, learn, folder, show)
    finally:
        rmtree(folder, ignore_errors=True)
