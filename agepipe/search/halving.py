"""Successive halving over epochs: the worse settings stop at each rung, the others go on from their own checkpoints.

A rung is a pause, not a shorter training. The learning rate's schedule is laid out over all of `learn.epochs`, so a
setting that goes on ends bit for bit as the same trial of a full grid would. The price: at a rung a one-cycle or
cosine schedule is in its middle, where the rate is high and the figures lie below what the setting would reach. All
settings of a rung stand at the same place of their schedules, so they compare with each other there, but those with
a high rate are judged a little too harshly; an average of the weights (`learn.average`) takes most of that away. A
figure of a rung says nothing beside one of the end, and the choice is made among those that reached it.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016.
"""

from collections.abc import Sequence
from statistics import mean

from agepipe.config.stages import LOWER_IS_BETTER, SearchSettings
from agepipe.search.records import Trial
from agepipe.search.trial import by_setting


def rank(trials: Sequence[Trial], search: SearchSettings, count: int) -> tuple[list[Trial], list[Trial]]:
    """The trials of a rung that go on, of at most `count` settings, and those that stop, in the order of the grid.

    Settings are judged by the mean over folds; of two that are level the earlier in the grid goes on.
    """
    sign = 1 if search.metric in LOWER_IS_BETTER else -1
    groups = by_setting(trials)
    order = sorted(groups, key=lambda group: sign * mean(one.metrics[search.metric] for one in group))
    on = {group[0].setting for group in order[:count]}
    return [one for one in trials if one.setting in on], [one for one in trials if one.setting not in on]
