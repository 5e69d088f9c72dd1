"""A search that learns from its own results: Optuna proposes settings from a continuous space, ten at random first.

The study lies beside the trials, in `workspace/studies`, as a SQLite file that Optuna's own tools can read. What it
proposes follows from its seed and from what it was told, never from the clock, the runner or the order in which
trials ended: so a killed search goes on as if it had not been, and a study that has lost its file ends the same.

Tree-structured Parzen estimator: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from agepipe.config.base import field_of
from agepipe.config.runtime import Runtime
from agepipe.config.search_space import Span
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, SearchSettings
from agepipe.core.artifacts import remove, turn
from agepipe.core.record import digest_of
from agepipe.core.sqlite import sqlite
from agepipe.data.records import Rows
from agepipe.search.records import Trial
from agepipe.search.trial import VERSION, Planned, by_setting, on_all_folds
from agepipe.training.workdir import weights_digest

if TYPE_CHECKING:  # an extra, and slow to import
    from optuna import Study as Kept
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

NAME = "search"
"""The study's name inside its file."""


class Study:
    """A study in progress; use `study`."""

    def __init__(self, kept: "Kept", search: SearchSettings) -> None:
        self._kept = kept
        self._search = search
        self._space = {name: _distribution(name, span) for name, span in search.space.items()}

    def known(self) -> list[Planned]:
        """What was proposed and judged earlier, on every fold; not what failed."""
        return self._planned([one for one in self._trials() if one.values is not None])

    def proposed(self) -> list[Planned]:
        """The next batch on every fold, with what an interruption left of the last one; nothing when all are judged."""
        open_ = [one for one in self._trials() if not one.state.is_finished()]
        while (count := len(self._kept.get_trials(deepcopy=False))) < self._search.trials:
            if open_ and count % self._search.together == 0:
                break
            open_.append(self._ask(count))
        return self._planned(open_)

    def tell(self, proposed: Sequence[Planned], trials: Sequence[Trial]) -> list[Trial]:
        """Note the mean over folds of each setting that was proposed, and as failed one without a trial on some fold.

        Returns:
            The trials of the settings that did not fail.
        """
        from optuna.trial import TrialState

        groups = {group[0].setting: group for group in by_setting(trials) if len(group) == self._search.folds}
        for number in sorted({number for number, _, _ in proposed}):
            if number in groups:
                self._kept.tell(number, mean(one.metrics[self._search.metric] for one in groups[number]))
            else:
                self._kept.tell(number, state=TrialState.FAIL)
        return [one for group in groups.values() for one in group]

    def _trials(self) -> list["FrozenTrial"]:
        return self._kept.get_trials(deepcopy=False)[: self._search.trials]

    def _ask(self, number: int) -> "FrozenTrial":
        from optuna.samplers import TPESampler

        # a fresh sampler each time, so that a resumed study proposes what an uninterrupted one would have
        self._kept.sampler = TPESampler(seed=int(digest_of(self._search.seed, number)[:8], 16) % 2**31)
        self._kept.ask(self._space)
        return self._kept.get_trials(deepcopy=False)[number]

    def _planned(self, trials: Sequence["FrozenTrial"]) -> list[Planned]:
        return [step for one in trials for step in on_all_folds(one.number, one.params, self._search)]


@contextmanager
def study(rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime) -> Iterator[Study]:
    """The study of this search, new or taken up again; another process with the same search waits.

    Its name says what decides its results. `search.trials` does not, so that a finished study goes on with more.
    """
    what = search.model_copy(update={"trials": SearchSettings().trials})
    key = digest_of("study", VERSION, rows, learn, weights_digest(learn), what)
    path = runtime.workspace / "studies" / f"{rows.name or 'rows'}-{key[:10]}.db"
    with turn(path):
        if runtime.refreshes("search"):  # proposals follow from the results, so nothing is lost that is not wanted anew
            remove(path, runtime.workspace)
        if not path.exists():
            _create(path, search)
        with _opened(path) as kept:
            yield Study(kept, search)


def _create(path: Path, search: SearchSettings) -> None:
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)  # what a kill has left
    with _opened(draft, "minimize" if search.metric in LOWER_IS_BETTER else "maximize"):
        draft.replace(path)


@contextmanager
def _opened(path: Path, create: Any = None) -> Iterator["Kept"]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(sqlite(path))
    try:
        if create:
            yield optuna.create_study(storage=storage, study_name=NAME, direction=create)
        else:
            yield optuna.load_study(storage=storage, study_name=NAME)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _distribution(name: str, span: Span | tuple[Any, ...]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(span, Span):
        return CategoricalDistribution(span)
    if field_of(LearnSettings, name).annotation is int:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)
