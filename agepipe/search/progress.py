"""The progress of a search: each trial writes its epoch to a small file, and the search reads them all.

Trials may run in threads, in other processes or on other machines; all of them see the workspace. What a user sees of
the state that is computed here is in `flows/table.py`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from statistics import mean
from typing import Any, TypeVar

from agepipe.config.base import combinations
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, SearchSettings
from agepipe.core.progress import Progress
from agepipe.search.records import Request, Trial, TrialId

logger = logging.getLogger("agepipe.progress")

T = TypeVar("T")


def in_words(settings: Mapping[str, Any]) -> str:
    """A setting in few words, numbers with four digits."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or "the only setting"


def trial_progress(folder: Path, trial: TrialId, name: str, start: int) -> Progress:
    """A progress callback that writes and logs each epoch of a trial, which continues from the epoch `start`."""

    def report(done: int, total: int, note: str = "") -> None:
        write_epoch(folder, trial, done)
        logger.info("%s: epoch %d of %d, %s", name, done, total, note)

    write_epoch(folder, trial, start)
    return report


def write_epoch(folder: Path, trial: TrialId, epoch: int) -> None:
    """Write the number of epochs that a trial has finished, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{trial[0]}-{trial[1]}"
    draft.write_text(str(epoch), encoding="utf-8")
    draft.replace(folder / draft.name[1:])


def read_epochs(folder: Path) -> dict[TrialId, int]:
    """The number of finished epochs of each trial that has written it."""
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
    """Computes the state of a search from the results of its trials and the epochs that they have written.

    Args:
        search: strategy, folds and metric.
        learn: the epochs of a complete training.
        folder: where the trials write their epochs; removed before and after.
        show: called with each new state.
    """

    def __init__(
        self, search: SearchSettings, learn: LearnSettings, folder: Path, show: Callable[[SearchState], None]
    ) -> None:  # fmt: skip
        self._search, self._learn, self._folder, self._show = search, learn, folder, show
        self._start = time.monotonic()
        self._done: dict[TrialId, int] = {}  # epochs of each trial, at all rungs
        self._trained = 0  # of these, the epochs that were not cached
        self._begin_rung(0)

    def _begin_rung(self, until: int) -> None:
        self._until = until
        self._settings: dict[int, Mapping[str, Any]] = {}
        self._scores: dict[TrialId, float] = {}
        self._epochs: dict[TrialId, int] = {}
        self._ended: set[TrialId] = set()
        self.close()  # no trial of this rung is running yet

    def close(self) -> None:
        """Remove the files of the trials."""
        rmtree(self._folder, ignore_errors=True)

    def begin(self, request: Request) -> None:
        """Expect the trials of a request; they are shown together with earlier ones until the same epoch."""
        until = request.until or self._learn.epochs
        if until != self._until:
            self._begin_rung(until)
        self._settings |= {spec.setting: spec.settings for spec in request.specs}
        self._specs = request.specs

    def update(self, results: Sequence[Trial | None]) -> None:
        """Show the state with these results of the request: None for the trials that have none yet."""
        for spec, one in zip(self._specs, results, strict=True):
            if one is not None:
                self._scores[spec.id] = one.metrics[self._search.metric]
        self._advance(set(self._scores))

    def end(self) -> None:
        """Show the state after the request: its trials without a result have diverged."""
        self._advance({spec.id for spec in self._specs})

    def _advance(self, ended: set[TrialId]) -> None:
        """Add the new epochs of each trial; one that ended without writing an epoch was cached."""
        self._ended |= ended
        self._epochs |= {
            trial: epoch for trial, epoch in read_epochs(self._folder).items() if trial[0] in self._settings
        }
        for trial in self._ended | set(self._epochs):
            epoch = self._until if trial in self._ended else min(self._epochs[trial], self._until)
            new = epoch - self._done.get(trial, 0)
            if new > 0:
                self._done[trial] = epoch
                self._trained += new if trial in self._epochs else 0
        self._show(self.state(time.monotonic() - self._start))

    def state(self, seconds: float) -> SearchState:
        """The state after `seconds` of the search."""
        search, done, total = self._search, sum(self._done.values()), self._total()
        running = {trial: epoch for trial, epoch in self._epochs.items() if trial not in self._ended}
        settings = [
            SettingState(values, search.folds, self._of(setting, self._scores), self._of(setting, running))
            for setting, values in self._settings.items()
        ]
        sign = 1 if search.metric in LOWER_IS_BETTER else -1
        return SearchState(
            metric=search.metric,
            until=self._until,
            epochs=self._learn.epochs,
            settings=tuple(sorted(settings, key=lambda one: (not one.complete, sign * (one.score or 0.0)))),
            done=len(self._ended),
            running=len(running),
            trials=search.folds * (search.trials if search.strategy == "optuna" else len(settings)),
            share=min(1.0, done / total) if total else 1.0,
            seconds_left=seconds * max(0, total - done) / self._trained if self._trained else None,
        )

    def _of(self, setting: int, values: Mapping[TrialId, T]) -> tuple[T, ...]:
        """The values of a setting's trials, in the order of its folds."""
        return tuple(values[setting, fold] for fold in range(self._search.folds) if (setting, fold) in values)

    def _total(self) -> int:
        """Epochs of the whole search."""
        if not self._search.trains:
            return 0
        if self._search.strategy == "optuna":
            return self._search.trials * self._search.folds * self._learn.epochs
        count, before, total = len(combinations(self._search.grid)), 0, 0
        for until in (*self._search.rungs, self._learn.epochs):
            total += count * self._search.folds * (until - before)
            count, before = self._search.kept(count), until
        return total
