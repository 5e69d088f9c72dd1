"""The base of all settings, and changes to them by dotted field name, as in overrides and grids."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agepipe.core.errors import ConfigError


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


def field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All leaf fields of a settings class by dotted name, in order of declaration."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            names += field_names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def unknown_field(what: str, name: str, known: Sequence[str]) -> ConfigError:
    """The error for a field that does not exist, with the nearest known name."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return ConfigError(f"{what}: there is no field '{name}'; the nearest is '{near[0]}'.")


def check_grid(base: Settings, grid: Mapping[str, Sequence[Any]], what: str = "search.grid") -> None:
    """Refuse a grid that has unknown fields, fields without values, or values that a field does not allow.

    Raises:
        ConfigError: names the field.
    """
    known = field_names(type(base))
    for name, values in grid.items():
        if name not in known:
            raise unknown_field(what, name, known)
        if len(values) == 0:
            raise ConfigError(f"{what}: '{name}' has no values; give at least one or leave the field out.")
        for value in values:
            changed(base, {name: value}, what)


def changed(settings: S, changes: Mapping[str, Any], what: str = "settings") -> S:
    """A copy of the settings with some fields replaced, by dotted name, and validated.

    Raises:
        ConfigError: a field does not exist or its value is not allowed.
    """
    raw = settings.model_dump()
    known = field_names(type(settings))
    for name, value in changes.items():
        if name not in known and not any(field.startswith(name + ".") for field in known):
            raise unknown_field(what, name, known)
        *parents, leaf = name.split(".")
        part = raw
        for parent in parents:
            part = part[parent]
        part[leaf] = value
    return checked(type(settings), raw, what)


def checked(kind: type[S], raw: Mapping[str, Any], what: str) -> S:
    """Build settings from plain values; pydantic's error becomes one sentence that names the field.

    Raises:
        ConfigError: a field does not exist or its value is not allowed.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_sentence(what, error, field_names(kind))) from error


def _sentence(what: str, error: ValidationError, known: Sequence[str]) -> str:
    errors = error.errors(include_url=False)
    # a field that seems to be missing may be one whose name is wrong
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return str(unknown_field(what, name, known))
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{what}: '{name}' is {first['input']!r}, but {message}."


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values, the first field varying slowest; one empty setting for no grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
