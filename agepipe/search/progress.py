"""How a search stands: what is judged, what is training, which setting is best so far, and how long it takes yet."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from agepipe.config.base import combinations
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, SearchSettings
from agepipe.search.records import Trial
from agepipe.search.trial import Planned

standings = logging.getLogger("agepipe.standing")
"""Carries each new `Standing` at level DEBUG, for whoever draws it."""

Place = tuple[int, int]
"""Setting and fold of a trial."""


def in_words(settings: Mapping[str, Any]) -> str:
    """A setting in few words, numbers to four digits."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or "the only setting"


@dataclass(frozen=True)
class Line:
    """One setting of a round."""

    settings: Mapping[str, Any]
    folds: int
    scores: tuple[float, ...] = ()
    """Of the folds that are judged."""
    epochs: tuple[int, ...] = ()
    """Epochs done by each fold that is training."""

    @property
    def judged(self) -> bool:
        """Whether all folds are."""
        return len(self.scores) == self.folds

    @property
    def score(self) -> float | None:
        """Mean over the folds that are judged."""
        return mean(self.scores) if self.scores else None


@dataclass(frozen=True)
class Standing:
    """A search at one moment."""

    metric: str
    until: int
    """Epochs that the trials of this round have; those of another round do not compare."""
    planned: int
    """Epochs of a whole trial."""
    lines: tuple[Line, ...]
    """The settings of this round, the best first, those that are judged on all folds before the others."""
    done: int
    """Trials of this round that are judged, or have failed."""
    running: int
    trials: int
    """Trials of this round."""
    seconds_left: float | None = None
    """For the whole search, by the epochs that this run has trained so far; None before the first."""

    @property
    def best(self) -> Line | None:
        """The best setting so far of those judged on all folds."""
        return self.lines[0] if self.lines and self.lines[0].judged else None

    @property
    def over(self) -> bool:
        """Whether no trial of this round goes on."""
        return self.done >= self.trials


@dataclass
class Scoreboard:
    """Counts a search as it goes; one round of it at a time, where halving has several."""

    search: SearchSettings
    learn: LearnSettings
    until: int = 0
    earlier: int = 0
    """Epochs that the trials of this round had when it began."""
    spent: float = 0.0
    """Epochs of finished rounds, trained in this run or found."""
    trained: float = 0.0
    """Of those, trained in this run."""
    steps: dict[Place, dict[str, Any]] = field(default_factory=dict)
    judged: dict[Place, float] = field(default_factory=dict)
    epochs: dict[Place, int] = field(default_factory=dict)
    """What trials of this round have reached in training; what was only found is not here."""
    failed: set[Place] = field(default_factory=set)
    """Trials of this round that ended without being judged."""

    def begin(self, planned: Iterable[Planned], until: int | None) -> bool:
        """Expect these trials; whether they begin a new round, as those to another epoch than before do."""
        until = until or self.learn.epochs
        new = until != self.until
        if new:
            self.spent, self.trained = self._progress()
            self.earlier, self.until = self.until, until
            self.steps, self.judged, self.epochs, self.failed = {}, {}, {}, set()
        self.steps |= {(setting, fold.index): changes for setting, changes, fold in planned}
        return new

    def finished(self, trials: Iterable[Trial]) -> None:
        """Note trials that are judged."""
        self.judged |= {(one.setting, one.fold.index): one.metrics[self.search.metric] for one in trials}

    def end(self) -> None:
        """Note that no trial goes on: those expected that are not judged have failed."""
        self.failed = set(self.steps) - set(self.judged)

    def reached(self, epochs: Mapping[Place, int]) -> None:
        """Note the epochs of trials that are training."""
        self.epochs |= {place: epoch for place, epoch in epochs.items() if place in self.steps}

    def standing(self, seconds: float) -> Standing:
        """How it stands after so many seconds."""
        running = {place: epoch for place, epoch in self.epochs.items() if place not in self._ended}
        done, trained = self._progress()
        left = None if trained == 0 else seconds * max(0.0, self.total() - done) / trained
        trials = self.search.trials * self.search.folds if self.search.strategy == "optuna" else len(self.steps)
        return Standing(
            metric=self.search.metric, until=self.until, planned=self.learn.epochs, lines=self._lines(running),
            done=len(self._ended), running=len(running), trials=trials, seconds_left=left,
        )  # fmt: skip

    def share(self) -> float:
        """Part of the whole search that is done, from 0 to 1; what was found counts as well."""
        return min(1.0, self._progress()[0] / total) if (total := self.total()) else 1.0

    @property
    def _ended(self) -> set[Place]:
        return set(self.judged) | self.failed

    def _progress(self) -> tuple[float, float]:
        """Epochs done altogether, and those of them that were trained in this run."""
        each = self.until - self.earlier
        whole = [place for place in self._ended if place in self.epochs]
        running = [epoch for place, epoch in self.epochs.items() if place not in self._ended]
        part = sum(max(0, min(epoch, self.until) - self.earlier) for epoch in running)
        return self.spent + each * len(self._ended) + part, self.trained + each * len(whole) + part

    def _lines(self, running: Mapping[Place, int]) -> tuple[Line, ...]:
        sign = 1 if self.search.metric in LOWER_IS_BETTER else -1
        lines = [
            Line(changes, self.search.folds, _of(setting, self.judged), _of(setting, running))
            for setting, changes in {setting: changes for (setting, _), changes in self.steps.items()}.items()
        ]
        return tuple(sorted(lines, key=lambda line: (not line.judged, sign * (line.score or 0.0))))

    def total(self) -> float:
        """Epochs of the whole search, had nothing been found."""
        folds, epochs = self.search.folds, self.learn.epochs
        if self.search.strategy == "optuna":
            return self.search.trials * folds * epochs
        if not self.search.trains:
            return 0.0
        count, before, total = len(combinations(self.search.grid)), 0, 0
        for until in (*self.search.rungs, epochs):
            total += count * folds * (until - before)
            count, before = self.search.kept(count), until
        return float(total)


def _of(setting: int, values: Mapping[Place, Any]) -> tuple[Any, ...]:
    return tuple(value for (position, _), value in sorted(values.items()) if position == setting)


def rows_of(standing: Standing) -> list[dict[str, Any]]:
    """The lines as plain rows, for a table."""
    return [
        {
            **line.settings,
            "epochs": standing.until,
            "folds": f"{len(line.scores)}/{line.folds}",
            standing.metric: line.score,
        }
        for line in standing.lines
    ]
