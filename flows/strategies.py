"""The ways to search: each decides which trials are wanted, has them trained on all folds, and chooses."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agepipe.config import LearnSettings, SearchSettings, Where
from agepipe.errors import DivergedError
from agepipe.learn.halving import rank
from agepipe.learn.runs import weights_digest
from agepipe.learn.study import study
from agepipe.learn.trial import Planned, choose, plan
from agepipe.records import Choice, Rows, Trial
from agepipe.settings import changed
from tasks.board import Board
from tasks.trial import stop, trial


@dataclass(frozen=True)
class Search:
    """What all trials of a search share, and how they fan out over the flow's runner."""

    rows: Rows
    learn: LearnSettings
    settings: SearchSettings
    where: Where
    board: Board

    def train(
        self, planned: Sequence[Planned], until: int | None = None, before: Iterable[Trial] = (), lenient: bool = False
    ) -> list[Trial]:
        """Train these, from fresh networks or where `before` has paused, to the end or to the epoch `until`.

        A loss that is not finite ends the search; with `lenient` that trial is left out instead.
        """
        paused = {(one.setting, one.fold.index): one for one in before}
        self.board.begin(planned, until)
        calls = [
            {
                "rows": self.rows,
                "learn": self.learn,
                "settings": changes,
                "setting": setting,
                "fold": fold,
                "metric": self.settings.metric,
                "weights": weights_digest(changed(self.learn, changes)),
                "until": until,
                "before": paused.get((setting, fold.index)),
                "where": self.where,
            }
            for setting, changes, fold in planned
        ]
        done = trial.gather(calls, self.board.update, (DivergedError,) if lenient else ())
        self.board.end()
        return done


def grid(search: Search) -> Choice:
    """Every setting to the end."""
    return choose(search.train(plan(search.learn, search.settings)), search.settings, search.learn)


def halving(search: Search) -> Choice:
    """Every setting to the first rung, the best share of them to the next, and so on; those at the end are compared."""
    going: list[Planned] = plan(search.learn, search.settings)
    paused: list[Trial] = []
    early: list[Trial] = []
    for until in search.settings.rungs:
        paused, stopped = rank(search.train(going, until, paused), search.settings)
        stop(stopped, search.where)
        early += stopped
        going = [(one.setting, one.settings, one.fold) for one in paused]
    return choose(search.train(going, None, paused), search.settings, search.learn, going, early)


def optuna(search: Search) -> Choice:
    """Settings that Optuna proposes, batch after batch, each to the end; one whose loss bursts is out."""
    with study(search.rows, search.learn, search.settings, search.where) as proposals:
        planned = proposals.known()
        trials = search.train(planned)
        while batch := proposals.proposed():
            judged = proposals.tell(batch, search.train(batch, lenient=True))
            planned += [(one.setting, one.settings, one.fold) for one in judged]
            trials += judged
    return choose(trials, search.settings, search.learn, planned)


STRATEGIES: dict[str, Callable[[Search], Choice]] = {"grid": grid, "halving": halving, "optuna": optuna}
"""By the name that `search.strategy` gives them."""
