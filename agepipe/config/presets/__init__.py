"""The four presets, as TOML files in this folder, and how variants and overrides are applied to them.

A preset may have variants: tables `[variants.NAME]` of the fields that they change, with `about`, a sentence that
describes the variant, and optionally `follows`, the name of an earlier variant whose changes are applied first.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from agepipe.config.base import changed, checked, field_names
from agepipe.config.stages import Config
from agepipe.core.errors import ConfigError

PresetName = Literal["sample", "laptop", "gpu", "notebook"]
"""The presets, from the smallest to the largest."""
FOLDER = Path(__file__).parent
ALL = "all"
"""Selects all variants of a preset."""


class Variant(NamedTuple):
    """A named change of a preset."""

    about: str
    """Description, one sentence."""
    changes: dict[str, Any]
    """Fields by dotted name, including those of the variants that it follows."""


def names() -> tuple[str, ...]:
    """The names of the presets, from the smallest to the largest."""
    found = {path.stem for path in FOLDER.glob("*.toml")}
    order: tuple[str, ...] = get_args(PresetName)
    return tuple(name for name in order if name in found) + tuple(sorted(found - set(order)))


def load(preset: str, overrides: Mapping[str, Any] | None = None, variant: str = "") -> Config:
    """A preset, to which a variant and then overrides, by dotted name, are applied.

    Raises:
        ConfigError: no such preset, variant or field, a value that is not allowed, or one that the search replaces.
    """
    return load_each(preset, overrides or {}, (variant,))[0]


def load_each(preset: str, overrides: Mapping[str, Any], named: Sequence[str]) -> list[Config]:
    """A preset with each of several variants, and the same fields laid over all of them.

    Raises:
        ConfigError: as `load`; a value that the search replaces is refused where it has no effect on any of them.
    """
    configs = [changed(_load(preset, variant), overrides, "override") for variant in named]
    for name, value in _leaves(overrides):
        own = name.removeprefix("learn.")
        searched = [_searched(config) for config in configs]
        if own != name and all(own in fields for fields in searched):
            field = searched[0][own]
            nothing = ", or search.grid={} as well to search nothing" if field == "search.grid" else ""
            raise ConfigError(
                f"override: '{name}' is {value!r}, but {field} has values of its own for it, which every training "
                f"takes; give {field}.{own}={json.dumps([value], default=str)} instead{nothing}."
            )
    return configs


def _load(preset: str, variant: str) -> Config:
    raw = {name: value for name, value in _read(preset).items() if name != "variants"}
    config = checked(Config, {**raw, "preset": preset, "variant": variant}, f"preset {preset}")
    if not variant:
        return config
    return changed(config, _variant(preset, variant).changes, f"preset {preset}, variant {variant}")


def _searched(config: Config) -> dict[str, str]:
    """The fields of `learn` that the search has values for, and where it has them."""
    search = config.search
    return {**dict.fromkeys(search.grid, "search.grid"), **dict.fromkeys(search.space, "search.space")}


def variants(preset: str) -> dict[str, Variant]:
    """The variants of a preset by name, in the order of its file; most presets have none.

    Raises:
        ConfigError: no such preset, or a variant follows one that does not come before it.
    """
    found: dict[str, Variant] = {}
    for name, table in _read(preset).get("variants", {}).items():
        before = table.get("follows")
        if before is not None and before not in found:
            raise ConfigError(f"preset {preset}, variant {name}: it follows '{before}', which does not come before it.")
        own = dict(_leaves({field: value for field, value in table.items() if field not in ("about", "follows")}))
        found[name] = Variant(table["about"], {**(found[before].changes if before else {}), **own})
    return found


def chosen(preset: str, words: Sequence[str]) -> tuple[str, ...]:
    """The variants that a user names, each once; `all` stands for every one, no word for the plain preset, `""`.

    Raises:
        ConfigError: no such preset or variant.
    """
    known = variants(preset)
    for word in words:
        if word != ALL or not known:
            _variant(preset, word)
    return tuple(dict.fromkeys(known if ALL in words else words)) or ("",)


def _variant(preset: str, name: str) -> Variant:
    known = variants(preset)
    if not known:
        raise ConfigError(f"variant: '{name}', but the preset {preset} has no variants; leave it out.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"variant: '{name}' is not known for the preset {preset}; the nearest is '{near}', "
            f"and there are {', '.join(known)}, and {ALL}."
        )
    return known[name]


def _read(preset: str) -> dict[str, Any]:
    if preset not in names():
        raise ConfigError(f"preset: '{preset}' is not known; choose one of {', '.join(names())}.")
    return tomllib.loads((FOLDER / f"{preset}.toml").read_text(encoding="utf-8"))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by dotted name; a table that is the value of a field, such as a grid, is not split."""
    for name, value in values.items():
        if isinstance(value, Mapping) and prefix + name not in field_names(Config):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read `field=value` words; the value is read as TOML if possible, otherwise as text.

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
