"""The search that learns from its own results: Optuna proposes settings from a continuous space, the first at random.

The study is a SQLite file in `workspace/studies`, which Optuna's own tools can read. Its proposals follow from its seed
and from the results so far, never from the clock, the runner or the order in which trials ended. So a killed search
continues as if it had not been interrupted, and a study whose file was lost ends the same.

Tree-structured Parzen estimator: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from agepipe.config.base import field_of
from agepipe.config.runtime import Runtime
from agepipe.config.search_space import Span
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, SearchSettings
from agepipe.core.artifacts import remove, turn
from agepipe.core.record import digest_of
from agepipe.core.sqlite import sqlite
from agepipe.data.records import Rows
from agepipe.search.choice import choose, on_every_fold
from agepipe.search.records import Request, Trial, TrialSpec, on_all_folds
from agepipe.search.trial import VERSION
from agepipe.training.records import Choice
from agepipe.training.workdir import weights_digest

if TYPE_CHECKING:  # an optional dependency, and slow to import
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

NAME = "search"
"""The study's name inside its file."""


def optuna(
    rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime
) -> Generator[Request, list[Trial], Choice]:
    """Train the settings that Optuna proposes, batch after batch, each to the end."""
    with study(rows, learn, search, runtime) as proposals:
        trials = yield Request(proposals.evaluated())
        while batch := proposals.propose():
            trials += proposals.record(batch, (yield Request(batch)))
    return choose(trials, search)


class Study:
    """An open study; `study` makes one."""

    def __init__(self, opened: "OptunaStudy", search: SearchSettings) -> None:
        self._study = opened
        self._search = search
        self._space = {name: _distribution(name, span) for name, span in search.space.items()}

    def evaluated(self) -> list[TrialSpec]:
        """The trials of the settings that have a result, without those that diverged."""
        return self._specs([one for one in self._trials() if one.values is not None])

    def propose(self) -> list[TrialSpec]:
        """The trials of the next batch, with those that an interruption left of the last one; empty at the end."""
        pending = [one for one in self._trials() if not one.state.is_finished()]
        while (count := len(self._study.get_trials(deepcopy=False))) < self._search.trials:
            if pending and count % self._search.together == 0:
                break
            pending.append(self._ask(count))
        return self._specs(pending)

    def record(self, batch: Sequence[TrialSpec], trials: Sequence[Trial]) -> list[Trial]:
        """Record the mean over folds of each proposed setting; one without a trial on every fold has failed.

        Returns:
            The trials of the settings that did not fail.
        """
        from optuna.trial import TrialState

        complete = on_every_fold(trials, self._search)
        for number in sorted({spec.setting for spec in batch}):
            values = [one.metrics[self._search.metric] for one in complete if one.setting == number]
            if values:
                self._study.tell(number, mean(values))
            else:
                self._study.tell(number, state=TrialState.FAIL)
        return complete

    def _trials(self) -> list["FrozenTrial"]:
        return self._study.get_trials(deepcopy=False)[: self._search.trials]

    def _ask(self, number: int) -> "FrozenTrial":
        from optuna.samplers import TPESampler

        # a new sampler each time, so that a resumed study proposes what an uninterrupted one would have
        self._study.sampler = TPESampler(seed=int(digest_of(self._search.seed, number)[:8], 16) % 2**31)
        self._study.ask(self._space)
        return self._study.get_trials(deepcopy=False)[number]

    def _specs(self, trials: Sequence["FrozenTrial"]) -> list[TrialSpec]:
        return [spec for one in trials for spec in on_all_folds(one.number, one.params, self._search)]


@contextmanager
def study(rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime) -> Iterator[Study]:
    """Open the study of this search, or create it; another process with the same search waits.

    The name of its file is a digest of everything that decides its results. `search.trials` is not part of it, so a
    finished study continues if more trials are wanted.
    """
    what = search.model_copy(update={"trials": SearchSettings().trials})
    key = digest_of("study", VERSION, rows, learn, weights_digest(learn), what)
    path = runtime.workspace / "studies" / f"{rows.name or 'rows'}-{key[:10]}.db"
    with turn(path):
        if runtime.refreshes("search"):  # the trials are computed again, and proposals follow from their results
            remove(path, runtime.workspace)
        if not path.exists():
            _create(path, search)
        with _opened(path) as found:
            yield Study(found, search)


def _create(path: Path, search: SearchSettings) -> None:
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)  # left by a killed process
    with _opened(draft, "minimize" if search.metric in LOWER_IS_BETTER else "maximize"):
        draft.replace(path)


@contextmanager
def _opened(path: Path, direction: Literal["minimize", "maximize"] | None = None) -> Iterator["OptunaStudy"]:
    """The study in a file; with a direction, a new one."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(sqlite(path))
    try:
        if direction:
            yield optuna.create_study(storage=storage, study_name=NAME, direction=direction)
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
