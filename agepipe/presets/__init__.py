"""The four presets, as TOML files beside this one, and how overrides are laid over them."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agepipe.config import Config
from agepipe.errors import ConfigError
from agepipe.settings import changed, checked

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The presets there are, from the smallest to the largest."""
    found = {path.stem for path in FOLDER.glob("*.toml")}
    order = ("sample", "laptop", "gpu", "notebook")
    return tuple(name for name in order if name in found) + tuple(sorted(found - set(order)))


def load(preset: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """A preset with some fields replaced, by dotted name.

    Raises:
        ConfigError: no such preset or field, or a value that is not allowed.
    """
    if preset not in names():
        raise ConfigError(f"preset: '{preset}' is not known; choose one of {', '.join(names())}.")
    raw = tomllib.loads((FOLDER / f"{preset}.toml").read_text(encoding="utf-8"))
    base = checked(Config, {**raw, "preset": preset}, f"preset {preset}")
    return changed(base, overrides or {}, "override")


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read `field=value` words; the value is TOML where it can be read as such, and text otherwise.

    Raises:
        ConfigError: a word has no `=`.
    """
    return dict(_parse(word) for word in words)


def _parse(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise ConfigError(f"override: {word!r} is not 'field=value'; write for example search.folds=3.")
    try:
        return name, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name, text
