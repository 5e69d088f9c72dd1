"""Refuse a search that cannot work, by field name, before any work is done: settings that nothing would read too."""

from importlib.util import find_spec
from itertools import pairwise
from math import ceil
from typing import Any

from agepipe.config.base import combinations
from agepipe.config.search_space import corners
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.errors import ConfigError

READ_BY = {"grid": ("grid", "halving"), "rungs": ("halving",), "keep": ("halving",), "space": ("optuna",)} | {
    "trials": ("optuna",), "together": ("optuna",), "always": ("grid",)
}  # fmt: skip
"""The strategies that read a field; the fields that are not here are read by all."""

FINALISTS = 2
"""Settings that must reach the last epoch: with one alone, shorter trainings would have made the choice."""


def check_search(search: SearchSettings, learn: LearnSettings) -> None:
    """Refuse a search whose strategy lacks something, or would ignore something.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    neutral = SearchSettings()
    for field, strategies in READ_BY.items():
        value = getattr(search, field)
        if search.strategy not in strategies and value != getattr(neutral, field):
            raise ConfigError(
                f"search.{field}: {value} does nothing with search.strategy = '{search.strategy}'; leave it out, or "
                f"take search.strategy = '{strategies[0]}'."
            )
    if "epochs" in search.grid or "epochs" in search.space:
        raise ConfigError("search: 'epochs' cannot be searched, for final.epochs decides in the end; leave it out.")
    if search.strategy == "halving":
        _check_halving(search, learn)
    if search.strategy == "optuna":
        _check_optuna(search)


def _check_halving(search: SearchSettings, learn: LearnSettings) -> None:
    if not search.rungs:
        raise ConfigError("search.rungs: there are none, but search.strategy = 'halving' needs one at least: [2, 4].")
    steps = (*search.rungs, learn.epochs)
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ConfigError(
            f"search.rungs: {list(search.rungs)} must rise and end below learn.epochs, which is {learn.epochs}."
        )
    _check_fall(search)


def _check_fall(search: SearchSettings) -> None:
    counts = [len(combinations(search.grid))]
    for _ in search.rungs:
        counts.append(kept(counts[-1], search.keep))
        if counts[-1] in (counts[-2], 1):
            raise ConfigError(
                f"search.rungs: {list(search.rungs)} with search.keep = {search.keep:g} leave {counts} settings; each "
                f"rung must stop some and the last leave {FINALISTS}: take fewer rungs, a larger grid or another keep."
            )


def kept(count: int, share: float) -> int:
    """How many of `count` settings go on from a rung."""
    return ceil(count * share - 1e-9)  # 10 × 0.3 is a little above 3


def _check_optuna(search: SearchSettings) -> None:
    if not search.space:
        raise ConfigError("search.space: it is empty, but search.strategy = 'optuna' needs a field to search at least.")
    if search.together > search.trials:
        raise ConfigError(f"search.together: {search.together}, but search.trials is {search.trials}; take less.")
    if find_spec("optuna") is None:
        raise ConfigError(
            "search.strategy: 'optuna' needs a package that is not installed; install agepipe[optuna] (uv run --extra "
            "optuna), or take 'grid' or 'halving'."
        )


def extremes(search: SearchSettings) -> list[dict[str, Any]]:
    """Every combination of the grid, or of the extreme values and choices of the space."""
    return combinations(corners(search.space) if search.strategy == "optuna" else search.grid)


def searched(search: SearchSettings) -> bool:
    """Whether any trial is trained: there is more than one setting, or the only one is to be judged as well."""
    return search.always or search.strategy == "optuna" or len(combinations(search.grid)) > 1
