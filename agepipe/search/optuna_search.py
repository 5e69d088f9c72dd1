"""The search that learns from its own results: Optuna proposes settings from a continuous space, the first at random.

The study is a SQLite file in `workspace/studies`, which Optuna's own tools can read. Its proposals follow from its seed
and from the results so far, never from the clock, the runner or the order in which trials ended. So a killed search
continues as if it had not been interrupted, and a study whose file was lost ends the same.

With `search.rungs` a proposal pauses after these epochs and stops there if Optuna's median pruner says so: if its mean
over folds is worse than the median of the settings that were trained to the end, once there are `BEFORE_PRUNING`.

Tree-structured Parzen estimator: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from agepipe.config.base import field_of
from agepipe.config.runtime import Runtime
from agepipe.config.search_space import Span
from agepipe.config.stages import LOWER_IS_BETTER, LearnSettings, SearchSettings
from agepipe.core.artifacts import remove, turn
from agepipe.core.record import digest_of
from agepipe.core.sqlite import sqlite
from agepipe.data.records import Rows
from agepipe.search.choice import by_setting, choose, mean_metric, on_every_fold
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
BEFORE_PRUNING = 5
"""Settings that are trained to the end before any is stopped early."""
CONTINUES = "continues"
"""Attribute of a proposal in the study: the last rung after which it was decided that it continues."""


def optuna(
    rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime
) -> Generator[Request, list[Trial], Choice]:
    """Train the settings that Optuna proposes, batch after batch, each to the end or until it is pruned."""
    with _opened(rows, learn, search, runtime) as study:
        trials = yield Request(_specs(_in_state(study, "COMPLETE", search), search))
        pruned = _in_state(study, "PRUNED", search)
        stopped: list[Trial] = []
        for until in search.rungs:
            there = [one for one in pruned if one.last_step == until]
            stopped += yield Request(_specs(there, search), until)
        while proposed := _proposed(study, search):
            specs = _specs(proposed, search)
            paused: list[Trial] = []
            stop: list[Trial] = []
            for until in search.rungs:
                batch = yield Request(specs, until, paused, stop)
                complete = on_every_fold(batch, search)
                continuing = _continuing(study, proposed, complete, until, search)
                stopped += [one for one in complete if one.setting not in continuing]
                paused = [one for one in batch if one.setting in continuing]
                stop = [one for one in batch if one.setting not in continuing]
                specs = [spec for spec in specs if spec.setting in continuing]
            complete = on_every_fold((yield Request(specs, None, paused, stop)), search)
            _record(study, proposed, complete, stopped, search)
            trials += complete
    return choose(trials, search, stopped)


def _in_state(study: "Study", state: str, search: SearchSettings) -> list["FrozenTrial"]:
    return [one for one in _trials(study, search) if one.state.name == state]


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


def _continuing(
    study: "Study", proposed: Sequence["FrozenTrial"], complete: Sequence[Trial], until: int, search: SearchSettings
) -> set[int]:  # fmt: skip
    """The settings that continue after a rung, of those that have a trial on every fold.

    A decision is stored with the proposal. A killed search whose batch was recorded in part would otherwise decide
    about the rest with results that it did not have before.
    """
    from optuna.trial import Trial as Proposal

    numbers = {one.number: one for one in proposed}
    continuing = set()
    for group in by_setting(complete):
        frozen = numbers[group[0].setting]
        proposal = Proposal(study, frozen._trial_id)  # the id has no public name
        if until not in frozen.intermediate_values:
            proposal.report(mean_metric(group, search), until)
        if frozen.user_attrs.get(CONTINUES, 0) >= until or not proposal.should_prune():
            proposal.set_user_attr(CONTINUES, max(until, frozen.user_attrs.get(CONTINUES, 0)))
            continuing.add(frozen.number)
    return continuing


def _record(
    study: "Study", proposed: Sequence["FrozenTrial"], complete: Sequence[Trial], stopped: Sequence[Trial],
    search: SearchSettings,
) -> None:  # fmt: skip
    """Record the mean over folds of each proposed setting; a setting without a trial on every fold has failed."""
    from optuna.trial import TrialState

    groups = {group[0].setting: group for group in by_setting(complete)}
    pruned = {one.setting for one in stopped}
    for one in proposed:
        if group := groups.get(one.number):
            study.tell(one.number, mean_metric(group, search))
        else:
            study.tell(one.number, state=TrialState.PRUNED if one.number in pruned else TrialState.FAIL)


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
            pruner = optuna.pruners.MedianPruner(BEFORE_PRUNING)
            yield optuna.create_study(
                storage=storage, study_name=NAME, direction=direction, load_if_exists=True, pruner=pruner
            )
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
