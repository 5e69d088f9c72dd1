"""The search strategies: generators that request trials, receive their results and return the choice.

A strategy yields a `Request` and is sent the trials that it asked for, without those that diverged. It does not know
how they are trained; `run` connects it with a function that does.

Successive halving pauses every setting at each of `search.rungs`; the best share continues from its own checkpoints.
A rung is a pause, not a shorter training: the learning rate's schedule runs over all of `learn.epochs`, so a setting
that continues ends bit for bit as the same trial of a grid search. The price: at a rung a one-cycle or cosine schedule
is in its middle, where the rate is high and the figures are below what the setting would reach. All settings of a rung
are at the same point of their schedules, so they can be compared with each other, but those with a high rate are
underestimated a little; an average of the weights (`learn.average`) removes most of that. Figures at a rung cannot be
compared with those at the end, so the choice is made among the settings that reached the end.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from agepipe.config.base import combinations
from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.data.records import Rows
from agepipe.search.choice import by_setting, choose, on_every_fold, score
from agepipe.search.optuna_search import optuna
from agepipe.search.records import Request, Trial, TrialSpec, on_all_folds
from agepipe.search.trial import forget
from agepipe.training.records import Choice

Strategy = Generator[Request, list[Trial], Choice]


def strategy(rows: Rows, learn: LearnSettings, search: SearchSettings, runtime: Runtime) -> Strategy:
    """The generator of `search.strategy`."""
    if search.strategy == "optuna":
        return optuna(rows, learn, search, runtime)
    return halving(search) if search.strategy == "halving" else grid(search)


def run(steps: Strategy, train: Callable[[Request], list[Trial]]) -> Choice:
    """Train what a strategy requests until it has chosen.

    Args:
        steps: a new generator, closed at the end, also after an error.
        train: returns the trials of a request, without those that diverged.

    Raises:
        TrainingError: no setting could be trained to the end.
    """
    with closing(steps):
        request = next(steps)
        while True:
            trials = train(request)
            try:
                request = steps.send(trials)
            except StopIteration as end:
                choice: Choice = end.value
                return choice


def plan(search: SearchSettings) -> list[TrialSpec]:
    """Every setting of the grid on every fold; empty for a single setting, unless `search.always` is set."""
    if not search.trains:
        return []
    return [
        spec for setting, one in enumerate(combinations(search.grid)) for spec in on_all_folds(setting, one, search)
    ]


def grid(search: SearchSettings) -> Strategy:
    """Train every setting to the end."""
    return choose((yield Request(plan(search))), search)


def halving(search: SearchSettings) -> Strategy:
    """Train every setting to the first rung, the best share of them to the next, and so on to the end."""
    specs = plan(search)
    paused: list[Trial] = []
    stop: list[Trial] = []
    stopped: list[Trial] = []
    at_rungs: list[Trial] = []
    for until in search.rungs:
        count = search.kept(len({spec.setting for spec in specs}))  # also if some of them diverge
        trials = yield Request(specs, until, paused, stop)
        complete = on_every_fold(trials, search)
        best = best_settings(complete, search, count)
        paused = [one for one in trials if one.setting in best]
        stop = [one for one in trials if one.setting not in best]
        stopped += [one for one in complete if one.setting not in best]
        at_rungs += trials
        specs = [spec for spec in specs if spec.setting in best]
    trials = yield Request(specs, None, paused, stop)
    forget(at_rungs)
    return choose(trials, search, stopped)


def best_settings(trials: Sequence[Trial], search: SearchSettings, count: int) -> set[int]:
    """Positions of the `count` settings with the best mean over folds; of equal ones the earlier."""
    groups = sorted(by_setting(trials), key=lambda group: -score(group, search))
    return {group[0].setting for group in groups[:count]}
