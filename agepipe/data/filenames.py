"""Parse the labels in UTKFace file names: `age_gender_race_timestamp.jpg.chip.jpg`.

Gender is 0 male, 1 female; race is 0 White, 1 Black, 2 Asian, 3 Indian, 4 Other. The published files have gaps: three
lack the race, one lacks a dot, one has white space, some have timestamps of unusual length. Only the age is required:
a name is used if it has an age, and a gender or race that is missing or has an unknown code is None.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from agepipe.core.errors import ConfigError
from agepipe.model.ages import AgeRange

Reason = Literal[
    "unparsable name",
    "no age",
    "age out of range",
    "not an image",
    "truncated",
    "too small",
    "damaged",
    "too large",
    "path leaves the archive",
    "link",
    "unreadable",
]
"""Reasons for rejecting a file; `unreadable` is a file that the folder or archive cannot read."""

GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "Other")

_WHOLE = re.compile(r"(?P<age>[0-9]+)_(?P<gender>[0-9]?)_(?P<race>[0-9]?)_.+")
_NO_RACE = re.compile(r"(?P<age>[0-9]+)_(?P<gender>[0-9]?)_(?P<race>)[0-9]{5,}.*")
_NEITHER = re.compile(r"(?P<age>[0-9]+)_(?P<gender>)(?P<race>)[0-9]{5,}.*")
_NO_AGE = re.compile(r"[^_]*_[0-9]?_([0-9]?_)?[0-9]{5,}.*")

_ENDS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "a HEIC picture"), ".avif": "an AVIF picture", ".gif": "a GIF picture",
    **dict.fromkeys((".tif", ".tiff"), "a TIFF picture"), ".jxl": "a JPEG XL picture",
    **dict.fromkeys((".jp2", ".j2k"), "a JPEG 2000 picture"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), "a raw photograph"),
}  # fmt: skip
FOREIGN = tuple(_ENDS)
"""File name endings of picture formats that are not read."""


class Label(NamedTuple):
    """The labels in a file name."""

    age: int
    """Years."""
    gender: int | None
    """0 male, 1 female."""
    race: int | None
    """0 White, 1 Black, 2 Asian, 3 Indian, 4 Other."""


class Reject(NamedTuple):
    """Why a file cannot be used."""

    reason: Reason
    detail: str
    """What was found, and what is allowed."""


def parse(name: str, min_age: int = 1, max_age: int = 116) -> Label | Reject:
    """The labels in a file name (without folders), or the reject of a name without an age.

    Args:
        name: such as `25_0_2_20170104020210475.jpg.chip.jpg`; white space anywhere in it is ignored.
        min_age: smallest accepted age, years.
        max_age: largest accepted age, years.
    """
    compact = "".join(name.split())
    match = _WHOLE.fullmatch(compact) or _NO_RACE.fullmatch(compact) or _NEITHER.fullmatch(compact)
    if match is None:
        return _without_age(compact)
    age = int(match["age"][:9])
    if not min_age <= age <= max_age:
        return Reject("age out of range", f"age {age}; {min_age} to {max_age} are allowed.")
    return Label(age, _code(match["gender"], GENDERS), _code(match["race"], RACES))


def class_folder(folder: str) -> str | None:
    """The folder's name if it is that of a class (`0` to `13`, `3-5`, `over80`); None for any other name."""
    return folder if _names_class(folder) else None


@lru_cache(maxsize=4096)
def _names_class(folder: str) -> bool:
    try:
        AgeRange.parse(folder)
    except ConfigError:
        return False
    return True


def unknown_name(name: str, allowed: tuple[str, ...]) -> str:
    """Why a file is not read because of its name; names the format if the ending shows it."""
    kind = next((kind for end, kind in _ENDS.items() if name.lower().endswith(end)), "")
    advice = f"it is {kind}; convert it to JPEG: " if kind else ""
    return f"{advice}files ending in {', '.join(allowed)} are read."


def _without_age(name: str) -> Reject:
    if _NO_AGE.fullmatch(name):
        return Reject("no age", "the field before the first '_' is not a whole number of years.")
    return Reject("unparsable name", "it is not of the form age_gender_race_timestamp.")


def _code(text: str, known: tuple[str, ...]) -> int | None:
    return int(text) if text and int(text) < len(known) else None
