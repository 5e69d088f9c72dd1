"""The base of all settings, and changes to them by dotted field name, as in overrides and grids."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from agepipe.core.errors import ConfigError

Side = Annotated[int, Field(ge=32, le=512)]
"""Side of a picture, px."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown field is an error.

    Validators refuse invalid combinations of fields with a `ConfigError`. Pydantic passes it on unchanged, because it
    is not a `ValueError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def differs(self, name: str) -> bool:
        """Whether a field has another value than its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)


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


def field_of(model: type[BaseModel], name: str) -> FieldInfo:
    """The field with a dotted name that exists."""
    first, _, rest = name.partition(".")
    field = model.model_fields[first]
    kind = field.annotation
    return field_of(kind, rest) if rest and isinstance(kind, type) and issubclass(kind, BaseModel) else field


def check_grid(model: type[Settings], grid: Mapping[str, Sequence[Any]], what: str = "search.grid") -> None:
    """Refuse a grid that has unknown fields, fields without values, or values that a field does not allow by itself.

    Raises:
        ConfigError: names the field.
    """
    known = field_names(model)
    for name, values in grid.items():
        if name not in known:
            raise unknown_field(what, name, known)
        if len(values) == 0:
            raise ConfigError(f"{what}: '{name}' has no values; give at least one or leave the field out.")
        for value in values:
            check_value(model, name, value, what)


def check_value(model: type[Settings], name: str, value: object, what: str) -> None:
    """Refuse a value that a field does not allow, whatever the other fields are.

    Raises:
        ConfigError: names the field.
    """
    field = field_of(model, name)
    kind: Any = Annotated[field.annotation, field]
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(_sentence(what, error, name)) from error


def changed(settings: S, changes: Mapping[str, Any], what: str = "settings") -> S:
    """A copy of the settings with some fields replaced, by dotted name, and validated.

    `search.grid` replaces the whole table of that field, `search.grid.lr` only one of its entries.

    Raises:
        ConfigError: a field does not exist, its value is not allowed, or their combination is invalid.
    """
    raw = settings.model_dump()
    known = field_names(type(settings))
    for name, value in changes.items():
        part, leaf = _place(raw, name, known, what)
        part[leaf] = value
    return checked(type(settings), raw, what)


def _place(raw: dict[str, Any], name: str, known: Sequence[str], what: str) -> tuple[dict[str, Any], str]:
    """The table that contains a field, and the field's name in that table."""
    field = next((one for one in known if name.startswith(f"{one}.")), None)
    *parents, leaf = (field or name).split(".")
    if field is None and name not in known and not any(one.startswith(f"{name}.") for one in known):
        raise unknown_field(what, name, known)
    part = raw
    for parent in parents:
        part = part[parent]
    if field is None:
        return part, leaf
    if not isinstance(part[leaf], dict):
        raise unknown_field(what, name, known)
    return part[leaf], name.removeprefix(f"{field}.")


def checked(kind: type[S], raw: Mapping[str, Any], what: str) -> S:
    """Build settings from plain values; pydantic's error becomes one sentence that names the field.

    Raises:
        ConfigError: a field does not exist, its value is not allowed, or their combination is invalid.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        extra = [one for one in error.errors(include_url=False) if one["type"] == "extra_forbidden"]
        if extra:  # a field that seems to be missing may be one whose name is wrong, so this comes first
            raise unknown_field(what, _name(extra[0]["loc"]), field_names(kind)) from error
        raise ConfigError(_sentence(what, error)) from error


def _sentence(what: str, error: ValidationError, *parents: str) -> str:
    first = error.errors(include_url=False)[0]
    name = _name((*parents, *first["loc"]))
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{what}: '{name}' is {first['input']!r}, but {message}."


def _name(parts: Sequence[int | str]) -> str:
    return ".".join(map(str, parts))


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values, the first field varying slowest; one empty setting for no grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
