"""The search that learns from its own results: Optuna proposes settings from a continuous space, the first at random.

The study is a SQLite file in `workspace/studies`, which Optuna's own tools can read. Its proposals follow from its seed
and from the results so far, never from the clock, the runner or the order in which trials ended. So a killed search
continues as if it had not been interrupted, and a study whose file was lost ends the same.

Tree-structured Parzen estimator: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
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
from agepipe.search.choice import by_setting, choose, on_every_fold
from agepipe.search.records import Request, Trial, TrialSpec, on_all_folds
from agepipe.search.trial import VERSION
from agepipe.training.records import Choice
from agepipe.training.workdir import weights_digest

if TYPE_CHECKING:  # an optional dependency, and slow to import
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

NAME = "search"
"""The study's name inside its file."""


def optuna(
    rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime
) -> Generator[Request, list[Trial], Choice]:
    """Train the settings that Optuna proposes, batch after batch, each to the end."""
    with _opened(rows, learn, search, runtime) as study:
        evaluated = [one for one in _trials(study, search) if one.values is not None]  # not those that diverged
        trials = yield Request(_specs(evaluated, search))
        while proposed := _proposed(study, search):
            batch = yield Request(_specs(proposed, search))
            complete = on_every_fold(batch, search)
            _record(study, proposed, complete, search)
            trials += complete
    return choose(trials, search)


def _trials(study: "Study", search: SearchSettings) -> list["FrozenTrial"]:
    return study.get_trials(deepcopy=False)[: search.trials]


def _specs(trials: Sequence["FrozenTrial"], search: SearchSettings) -> list[TrialSpec]:
    return [spec for one in trials for spec in on_all_folds(one.number, one.params, search)]


def _proposed(study: "Study", search: SearchSettings) -> list["FrozenTrial"]:
    """The next batch, with what an interruption left of the last one; empty if all trials have ended."""
    from optuna.samplers import TPESampler

    space = {name: _distribution(name, span) for name, span in search.space.items()}
    proposed = [one for one in _trials(study, search) if not one.state.is_finished()]
    while (count := len(study.get_trials(deepcopy=False))) < search.trials:
        if proposed and count % search.together == 0:
            break
        # a new sampler each time, so that a resumed study proposes what an uninterrupted one would have
        study.sampler = TPESampler(seed=int(digest_of(search.seed, count)[:8], 16) % 2**31)
        study.ask(space)
        proposed.append(study.get_trials(deepcopy=False)[count])
    return proposed


def _record(
    study: "Study", proposed: Sequence["FrozenTrial"], complete: Sequence[Trial], search: SearchSettings
) -> None:  # fmt: skip
    """Record the mean over folds of each proposed setting; one without a trial on every fold has failed."""
    from optuna.trial import TrialState

    groups = {group[0].setting: group for group in by_setting(complete)}
    for one in proposed:
        if group := groups.get(one.number):
            study.tell(one.number, mean(trial.metrics[search.metric] for trial in group))
        else:
            study.tell(one.number, state=TrialState.FAIL)


@contextmanager
def _opened(rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime) -> Iterator["Study"]:
    """Open the study of this search, or create it; another process with the same search waits.

    The name of its file is a digest of everything that decides its results. `search.trials` is not part of it, so a
    finished study continues if more trials are wanted.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    what = search.model_copy(update={"trials": SearchSettings().trials})
    key = digest_of("study", VERSION, rows, learn, weights_digest(learn), what)
    path = runtime.workspace / "studies" / f"{rows.name or 'rows'}-{key[:10]}.db"
    direction: Literal["minimize", "maximize"] = "minimize" if search.metric in LOWER_IS_BETTER else "maximize"
    with turn(path):
        if runtime.refreshes("search"):  # the trials are computed again, and proposals follow from their results
            remove(path, runtime.workspace)
        storage = optuna.storages.RDBStorage(sqlite(path))
        try:
            yield optuna.create_study(storage=storage, study_name=NAME, direction=direction, load_if_exists=True)
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
