"""The ways to search: each decides which trials are wanted, has them trained on all folds, and chooses."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.errors import DivergedError
from agepipe.data.records import Rows
from agepipe.search.halving import rank
from agepipe.search.optuna_search import study
from agepipe.search.progress import in_words
from agepipe.search.records import Fold, Trial
from agepipe.search.trial import Planned, choose, complete, forget, left_out, plan
from agepipe.training.records import Choice
from agepipe.training.workdir import weights_digest
from tasks.board import Board
from tasks.trial import stop, trial

logger = logging.getLogger("agepipe.progress")


@dataclass(frozen=True)
class Search:
    """What all trials of a search share, and how they fan out over the flow's runner."""

    rows: Rows
    learn: LearnSettings
    settings: SearchSettings
    runtime: Runtime
    board: Board

    def train(
        self, planned: Sequence[Planned], until: int | None = None, before: Iterable[Trial] = ()
    ) -> list[Trial]:  # fmt: skip
        """Train these, from fresh networks or where `before` has paused, to the end or to the epoch `until`.

        A trial whose loss is not finite is left out, with a warning, and costs no other trial its place.
        """
        paused = {(one.setting, one.fold.index): one for one in before}
        self.board.begin(planned, until)
        calls = [self._call(*one, until, paused.get((one[0], one[2].index))) for one in planned]
        done = named(
            planned,
            trial.gather(calls, lambda found: self.board.update(named(planned, found)), (DivergedError,)),
        )
        self.board.end()
        whole = [one for one in done if one is not None]
        for _, changes, fold in left_out(planned, whole):
            logger.warning("fold %d: the loss of %s is not finite, so it is out", fold.index, in_words(changes))
        return whole

    def _call(
        self, setting: int, changes: dict[str, Any], fold: Fold, until: int | None, before: Trial | None
    ) -> dict[str, Any]:  # fmt: skip
        """The arguments of one trial."""
        learn = changed(self.learn, changes, "search.grid")
        weights, metric = weights_digest(learn), self.settings.metric
        until = until if until is not None and until < learn.epochs else None
        whole = None
        if until is not None:
            whole = trial.without_prefect.finished(
                self.rows, learn, changes, setting, fold, metric, weights, None, None, None, self.runtime
            )
        return {
            "rows": self.rows, "learn": learn, "settings": changes, "setting": setting, "fold": fold, "metric": metric,
            "weights": weights, "until": until, "before": before, "whole": whole, "runtime": self.runtime,
        }  # fmt: skip


def named(planned: Sequence[Planned], trials: Sequence[Trial | None]) -> list[Trial | None]:
    """Finished trials with the setting that this search has them for: another one may have trained them."""
    return [
        None if one is None else one.model_copy(update={"setting": setting, "settings": changes})
        for (setting, changes, _), one in zip(planned, trials, strict=True)
    ]


def grid(search: Search) -> Choice:
    """Every setting to the end; one whose loss bursts on a fold is out."""
    planned = plan(search.settings)
    trials, whole = complete(planned, search.train(planned))
    return choose(trials, search.settings, whole if planned else None)


def halving(search: Search) -> Choice:
    """Every setting to the first rung, the best share of them to the next, and so on; those at the end are compared."""
    going: list[Planned] = plan(search.settings)
    paused: list[Trial] = []
    rungs: list[Trial] = []
    early: list[Trial] = []
    for until in search.settings.rungs:
        count = search.settings.kept(len({setting for setting, _, _ in going}))  # also where some have burst
        trained = search.train(going, until, paused)
        rungs += trained
        trials, _ = complete(going, trained)
        paused, stopped = rank(trials, search.settings, count)
        stop([*stopped, *(one for one in trained if one not in trials)], search.runtime)  # and what has burst elsewhere
        early += stopped
        going = [(one.setting, one.settings, one.fold) for one in paused]
    trials, going = complete(going, search.train(going, None, paused))
    forget(rungs)
    return choose(trials, search.settings, going, early)


def optuna(search: Search) -> Choice:
    """Settings that Optuna proposes, batch after batch, each to the end; one whose loss bursts is out."""
    with study(search.rows, search.learn, search.settings, search.runtime) as proposals:
        planned = proposals.known()
        trials = search.train(planned)
        while batch := proposals.proposed():
            judged = proposals.tell(batch, search.train(batch))
            planned += [(one.setting, one.settings, one.fold) for one in judged]
            trials += judged
    return choose(trials, search.settings, planned)


STRATEGIES: dict[str, Callable[[Search], Choice]] = {"grid": grid, "halving": halving, "optuna": optuna}
"""By the name that `search.strategy` gives them."""
