"""The choice of the best setting, by its mean over folds."""

from collections.abc import Sequence
from itertools import groupby
from statistics import mean, stdev

from agepipe.config.base import combinations
from agepipe.config.stages import LOWER_IS_BETTER, SearchSettings
from agepipe.core.errors import TrainingError
from agepipe.core.record import digest_of
from agepipe.search.records import Trial
from agepipe.search.trial import OUTCOMES, VERSION
from agepipe.training.records import Choice, Stopped

TIE = 1e-12
"""Means that differ by no more than this are equal."""


def by_setting(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials of each setting, in the order of the settings."""
    ordered = sorted(trials, key=lambda one: one.setting)
    return [list(group) for _, group in groupby(ordered, key=lambda one: one.setting)]


def on_every_fold(trials: Sequence[Trial], search: SearchSettings) -> list[Trial]:
    """The trials of settings that have one on every fold; a setting that diverged on some fold has not."""
    complete = {group[0].setting for group in by_setting(trials) if len(group) == search.folds}
    return [one for one in trials if one.setting in complete]


def mean_metric(trials: Sequence[Trial], search: SearchSettings) -> float:
    """Mean of the search's metric over the trials of one setting."""
    return mean(one.metrics[search.metric] for one in trials)


def score(trials: Sequence[Trial], search: SearchSettings) -> float:
    """Mean of the search's metric over the trials of one setting, negated for an error: higher is better."""
    value = mean_metric(trials, search)
    return -value if search.metric in LOWER_IS_BETTER else value


def choose(trials: Sequence[Trial], search: SearchSettings, stopped: Sequence[Trial] = ()) -> Choice:
    """Choose the setting with the best mean over folds; a setting without a trial on every fold is left out.

    Ties go to the setting with fewer parameters, then fewer epochs, then the earlier position. Never to the faster
    one: that would choose differently on another day.

    Args:
        trials: finished trials.
        search: folds and metric.
        stopped: trials that were stopped early; the choice records them and does not compare them.

    Raises:
        TrainingError: no setting has a trial on every fold, or a trial was not trained to the end.
    """
    if not search.trains:
        settings = combinations(search.grid)[0]
        digest = digest_of("choice", VERSION, sorted(settings.items()), search.metric, [])
        return Choice(digest=digest, settings=settings, metric=search.metric, mean=0.0, deviation=0.0, trials=0)
    if unfinished := sum(not one.finished for one in trials):
        raise TrainingError(
            f"search: {unfinished} of {len(trials)} trials were not trained to the end; run the search again."
        )
    compared = on_every_fold(trials, search)
    if not compared:
        raise TrainingError("search: no setting could be trained to the end; take smaller learning rates.")
    groups = by_setting(compared)
    best = max(score(group, search) for group in groups)
    tied = [group for group in groups if best - score(group, search) <= TIE]
    won = min(tied, key=lambda group: (group[0].parameters, max(one.epochs for one in group), group[0].setting))
    values = [one.metrics[search.metric] for one in won]
    everything = [*compared, *stopped]
    ordered = sorted((one.setting, one.fold.index, one.digest) for one in everything)
    return Choice(
        digest=digest_of("choice", VERSION, sorted(won[0].settings.items()), search.metric, ordered),
        settings=won[0].settings, metric=search.metric, mean=mean(values),
        deviation=stdev(values) if len(values) > 1 else 0.0, trials=len(everything),
        runs=tuple(one.run for one in everything if one.run),
        stopped=tuple(_stopped(group, search) for group in by_setting(stopped)),
        outcomes=tuple(one.folder / OUTCOMES for one in sorted(won, key=lambda one: one.fold.index)),
    )  # fmt: skip


def _stopped(trials: Sequence[Trial], search: SearchSettings) -> Stopped:
    first = trials[0]
    return Stopped(
        settings=first.settings, epochs=first.epochs, planned=first.planned, mean=mean_metric(trials, search)
    )  # fmt: skip
