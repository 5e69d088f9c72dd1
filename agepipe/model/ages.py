"""AgeRanges: the only place that maps ages to classes and classes to names.

The order of the ranges is the order of the classes everywhere. Class names are never sorted, because as text '10' sorts
before '2'. The ranges are stored with every record of labelled rows and in every model.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from agepipe.core.errors import ConfigError

OLDEST = 116
"""The oldest age in UTKFace, in years: the assumed end of an open last range where a mid age is needed."""

UTKFACE_RANGES = (
    "1-2", "3-5", "6-10", "11-14", "15-17", "18-22", "23-27",
    "28-33", "34-40", "41-50", "51-60", "61-70", "71-80", "over80",
)  # fmt: skip
"""The fourteen ranges that the default labels use, youngest first."""

RangeSpec = Literal["utkface", "years"] | tuple[str, ...]
"""How a configuration names its ranges: `utkface`, `years`, or the ranges' own names, youngest first."""


class AgeRange(BaseModel):
    """Whole years from `low` to `high`, both included; `high` is None for the open last range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int
    high: int | None

    @property
    def name(self) -> str:
        """`3-5`, `7` for a single year, `over80` for an open range."""
        if self.high is None:
            return f"over{self.low - 1}"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    @property
    def words(self) -> str:
        """`3 to 5`, `7`, `over 80`; a spreadsheet would read `3-5` as a date."""
        if self.high is None:
            return f"over {self.low - 1}"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"

    @property
    def mid_age(self) -> float:
        """The middle of the range in years; an open range is assumed to be ten years wide."""
        high = min(self.low + 9, OLDEST) if self.high is None else self.high
        return (self.low + max(high, self.low)) / 2

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3-5`, `7`, `over80` or `81+`.

        Raises:
            ConfigError: the text is none of these.
        """
        text = text.strip()
        if match := re.fullmatch(r"(\d+)\s*-\s*(\d+)", text):
            return cls(low=int(match[1]), high=int(match[2]))
        if match := re.fullmatch(r"over\s*(\d+)", text):
            return cls(low=int(match[1]) + 1, high=None)
        if match := re.fullmatch(r"(\d+)\+", text):
            return cls(low=int(match[1]), high=None)
        if re.fullmatch(r"\d+", text):
            return cls(low=int(text), high=int(text))
        raise ConfigError(f"ranges: {text!r} is not a range; write '3-5', a single year '7', or 'over80'.")


class AgeRanges(BaseModel):
    """Ordered ranges of whole years without gap or overlap; only the last may be open.

    Raises:
        ConfigError: there are no ranges, one is empty, two overlap, are out of order or leave a gap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: tuple[AgeRange, ...]

    @classmethod
    def of(cls, spec: RangeSpec | Sequence[str]) -> Self:
        """The ranges that a configuration names: `utkface`, `years`, or their names, youngest first."""
        if spec == "utkface":
            return cls.of(UTKFACE_RANGES)
        if spec == "years":
            return cls.of([*(str(year) for year in range(1, OLDEST)), f"over{OLDEST - 1}"])
        if isinstance(spec, str):
            raise ConfigError(f"ranges: {spec!r} is not known; write 'utkface', 'years', or a list of ranges.")
        return cls(ranges=tuple(AgeRange.parse(name) for name in spec))

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if len(self.ranges) < 2:
            raise ConfigError(f"ranges: {len(self.ranges)} given, at least 2 are needed to tell ages apart.")
        for item in self.ranges:
            if item.high is not None and item.high < item.low:
                raise ConfigError(f"ranges: '{item.name}' is empty; its first year must not be above its last.")
        for before, after in zip(self.ranges, self.ranges[1:], strict=False):
            self._check_pair(before, after)
        return self

    @staticmethod
    def _check_pair(before: AgeRange, after: AgeRange) -> None:
        if after.low < before.low:
            raise ConfigError(f"ranges: '{after.name}' comes after '{before.name}'; list the youngest first.")
        if before.high is None or after.low <= before.high:
            raise ConfigError(f"ranges: '{before.name}' and '{after.name}' overlap; give each age one range.")
        if after.low > before.high + 1:
            raise ConfigError(
                f"ranges: the ages {before.high + 1} to {after.low - 1} lie between '{before.name}' and "
                f"'{after.name}'; extend one of the two to close the gap."
            )

    def __len__(self) -> int:
        return len(self.ranges)

    def __eq__(self, other: object) -> bool:
        # pydantic would compare the cached arrays too, whose comparison has no truth value
        return isinstance(other, AgeRanges) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The class names in class order."""
        return tuple(item.name for item in self.ranges)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The ranges in class order as words, which a spreadsheet does not change."""
        return tuple(item.words for item in self.ranges)

    @cached_property
    def lows(self) -> NDArray[np.int64]:
        """First year of each range, int64 `(classes,)`."""
        return np.array([item.low for item in self.ranges], dtype=np.int64)

    @cached_property
    def highs(self) -> NDArray[np.float64]:
        """Last year of each range, float64 `(classes,)`; infinity for an open range."""
        return np.array([np.inf if item.high is None else item.high for item in self.ranges])

    @cached_property
    def mid_ages(self) -> NDArray[np.float64]:
        """Mid age of each range in years, float64 `(classes,)`."""
        return np.array([item.mid_age for item in self.ranges], dtype=np.float64)

    @property
    def youngest(self) -> int:
        """The first year that has a class."""
        return self.ranges[0].low

    @property
    def oldest(self) -> int | None:
        """The last year that has a class; None when the last range is open."""
        return self.ranges[-1].high

    def classes(self, ages: NDArray[np.integer]) -> NDArray[np.int64]:
        """The class of each age, int64, shaped as `ages`; -1 for an age outside all ranges."""
        found = np.searchsorted(self.lows, ages, side="right") - 1
        if self.oldest is not None:
            found = np.where(ages > self.oldest, -1, found)
        return np.asarray(found, dtype=np.int64)

    def class_of(self, age: int) -> int | None:
        """The class of one age; None when it lies outside all ranges."""
        found = int(self.classes(np.array([age]))[0])
        return None if found < 0 else found

    def within(self, labels: NDArray[np.integer], years: NDArray[np.floating]) -> NDArray[np.float64]:
        """Ages in years, each clipped to its predicted range, float64, shaped as `years`."""
        return np.clip(np.asarray(years, dtype=np.float64), self.lows[labels], self.highs[labels])

    def span(self, first: int, last: int) -> tuple[int, int | None]:
        """First and last year of the classes `first` to `last`; the last is None if that range is open."""
        return self.ranges[first].low, self.ranges[last].high

    def span_words(self, first: int, last: int) -> str:
        """`span` as words: `28 to 40`, `7` for a single year, `over 27` for an open end."""
        low, high = self.span(first, last)
        return AgeRange(low=low, high=high).words
