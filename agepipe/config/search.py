"""Settings of the search: which settings of a training are tried, and how the best is chosen."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from agepipe.config.base import Seed, Settings, changed, check_grid, combinations
from agepipe.config.learn import LearnSettings
from agepipe.config.search_space import Space, corners, read
from agepipe.core.errors import ConfigError

Metric = Literal["macro_recall", "accuracy", "within_one", "mae", "macro_f1", "loss"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"mae", "loss", "ece"})

READ_BY = {"grid": ("grid", "halving"), "rungs": ("halving", "optuna"), "keep": ("halving",), "space": ("optuna",)} | {
    "trials": ("optuna",), "together": ("optuna",), "always": ("grid",)
}  # fmt: skip
"""The strategies that use a field; all strategies use the other fields."""

FINALISTS = 2
"""Minimum number of settings that reach the last epoch: with only one, unfinished trainings would decide."""


class SearchSettings(Settings):
    """Which settings are tried, and how the best is chosen."""

    strategy: Literal["grid", "halving", "optuna"] = "grid"
    """Try all of `grid`; try all of it but stop the worse settings at each of `rungs`; or have Optuna propose settings
    from `space`."""
    grid: dict[str, tuple[Any, ...]] = {}
    """Fields of `learn` by dotted name, each with the values to try; empty tries only `learn` itself."""
    rungs: tuple[Annotated[int, Field(ge=1, le=2000)], ...] = ()
    """Epochs, ascending and below `learn.epochs`, after which settings stop: the worse share of them (`strategy =
    "halving"`), or those that are worse than the median of the finished ones (`strategy = "optuna"`)."""
    keep: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of the settings, rounded up, that continues after each of `rungs`."""
    space: Space = {}
    """Fields of `learn` by dotted name, each `{low, high, log}` or a list of choices (`strategy = "optuna"`)."""
    trials: Annotated[int, Field(ge=2, le=10_000)] = 20
    """Settings that Optuna proposes; a larger number continues a finished study."""
    together: Annotated[int, Field(ge=1, le=512)] = 1
    """Settings proposed at a time; those of one batch are proposed without each other's results."""
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    """Folds of the cross-validation inside the development rows."""
    always: bool = False
    """Train the folds for a single setting too: for its mean over folds, and for the out-of-fold predictions that
    calibrate a model of `final.refit`."""
    seed: Seed = 30
    """Seed for drawing the folds."""
    metric: Metric = "macro_recall"
    """Validation figure that decides, as the mean over folds; ties go to the cheaper setting."""

    @field_validator("grid")
    @classmethod
    def _check_grid(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        check_grid(LearnSettings, value)
        return value

    @field_validator("space", mode="before")
    @classmethod
    def _check_space(cls, value: object) -> object:
        return read(LearnSettings, value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, strategies in READ_BY.items():
            if self.strategy not in strategies and self.differs(field):
                raise ConfigError(
                    f"search.{field}: {getattr(self, field)} does nothing with search.strategy = '{self.strategy}'; "
                    f"leave it out, or take search.strategy = '{strategies[0]}'."
                )
        if "epochs" in self.grid or "epochs" in self.space:
            raise ConfigError(
                "search: 'epochs' cannot be searched, because the final training uses final.epochs; leave it out."
            )
        if any(later <= earlier for earlier, later in pairwise(self.rungs)):
            raise ConfigError(f"search.rungs: {list(self.rungs)} must rise; put the smallest first, and each once.")
        if self.strategy == "halving":
            self._check_halving()
        if self.strategy == "optuna":
            self._check_optuna()
        return self

    def _check_halving(self) -> None:
        rungs = list(self.rungs)
        if not rungs:
            raise ConfigError(
                "search.rungs: there are none, but search.strategy = 'halving' needs at least one: [2, 4]."
            )
        counts = [len(combinations(self.grid))]
        for _ in rungs:
            counts.append(self.kept(counts[-1]))
            if counts[-1] in (counts[-2], 1):
                raise ConfigError(
                    f"search.rungs: {rungs} with search.keep = {self.keep:g} leave {counts} settings; each rung must "
                    f"stop some and the last leave {FINALISTS}: take fewer rungs, a larger grid or another keep."
                )

    def _check_optuna(self) -> None:
        if not self.space:
            raise ConfigError(
                "search.space: it is empty, but search.strategy = 'optuna' needs a field to search at least."
            )
        if self.together > self.trials:
            raise ConfigError(f"search.together: {self.together}, but search.trials is {self.trials}; take less.")

    def kept(self, count: int) -> int:
        """Number of settings, out of `count`, that continue after a rung."""
        return ceil(count * self.keep - 1e-9)  # 10 × 0.3 is a little above 3

    @property
    def trains(self) -> bool:
        """Whether any trial is trained: there is more than one setting, or `always` is set."""
        return self.always or self.strategy == "optuna" or len(combinations(self.grid)) > 1

    def check_each(self, learn: LearnSettings, check: Callable[[LearnSettings], None]) -> None:
        """Call `check` with every setting of the grid, or with those at the extremes of the space.

        Args:
            learn: the base of every trial.
            check: receives `learn` with a setting applied to it, and raises `ConfigError` to refuse it.

        Raises:
            ConfigError: names the setting that was refused by `check`, or whose fields are an invalid combination.
        """
        field = "search.space" if self.strategy == "optuna" else "search.grid"
        for setting in combinations({**self.grid, **corners(self.space)}):  # one of the two is empty
            try:
                check(changed(learn, setting, field))
            except ConfigError as error:
                raise ConfigError((f"{field} {setting}: " if setting else "") + str(error)) from error

    def check_rungs(self, epochs: int) -> None:
        """Refuse rungs that are not below the epochs of a trial.

        Raises:
            ConfigError: names `search.rungs`.
        """
        if self.rungs and self.rungs[-1] >= epochs:
            raise ConfigError(f"search.rungs: {list(self.rungs)} must end below learn.epochs, which is {epochs}.")


def check_installed(search: SearchSettings) -> None:
    """Refuse a strategy whose package is not installed.

    Raises:
        ConfigError: says what to install.
    """
    if search.strategy == "optuna" and find_spec("optuna") is None:
        raise ConfigError(
            "search.strategy: 'optuna' needs a package that is not installed; install agepipe[optuna] (uv run --extra "
            "optuna), or take 'grid' or 'halving'."
        )
