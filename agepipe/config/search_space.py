"""The space that Optuna searches: a span of numbers or a list of choices for each field."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from agepipe.config.base import Settings, check_grid, check_value, checked, field_names, field_of, unknown_field
from agepipe.core.errors import ConfigError

Number = Annotated[float, Field(allow_inf_nan=False)]


class Span(Settings):
    """All numbers from `low` to `high`, both included; only integers for an integer field."""

    low: Number
    """Smallest value."""
    high: Number
    """Largest value."""
    log: bool = False
    """Draw the logarithm uniformly, as is usual for learning rates and weight decays."""


Space = dict[str, Span | tuple[Any, ...]]


def read(model: type[Settings], raw: Mapping[str, Any], what: str = "search.space") -> Space:
    """A space from plain values, checked against the fields that it changes.

    Raises:
        ConfigError: names a field that does not exist, or whose span or choices are not allowed.
    """
    known = field_names(model)
    for name in raw:
        if name not in known:
            raise unknown_field(what, name, known)
    return {name: _read(model, name, value, what) for name, value in raw.items()}


def _read(model: type[Settings], name: str, value: object, what: str) -> Span | tuple[Any, ...]:
    if isinstance(value, Mapping):
        value = checked(Span, dict(value), f"{what} {name}")
    if isinstance(value, Span):
        _check_span(model, name, value, what)
        return value
    if isinstance(value, (list, tuple)):
        check_grid(model, {name: value}, what)
        return tuple(value)
    raise ConfigError(f"{what}: '{name}' is {value!r}; give {{low=…, high=…}}, or a list of choices.")


def _check_span(model: type[Settings], name: str, span: Span, what: str) -> None:
    if field_of(model, name).annotation not in (int, float):
        raise ConfigError(f"{what}: '{name}' is not a number, so it has no span; give a list of choices.")
    if span.low >= span.high:
        raise ConfigError(f"{what}: '{name}' has low={span.low:g} and high={span.high:g}; low must be less than high.")
    if span.log and span.low <= 0:
        raise ConfigError(f"{what}: '{name}' has log=true and low={span.low:g}; take a low above 0, or log=false.")
    for value in (span.low, span.high):
        check_value(model, name, value, what)


def corners(space: Space) -> dict[str, Sequence[Any]]:
    """The extreme values and the choices of each field, as a grid."""
    return {name: (span.low, span.high) if isinstance(span, Span) else span for name, span in space.items()}
