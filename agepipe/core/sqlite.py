"""The URL of an SQLite file, as SQLAlchemy reads it."""

from pathlib import Path

ODD = "%?#"
"""Characters of a path that have a meaning in the URL of a database."""


def odd(path: Path) -> bool:
    """Whether the path has characters of `ODD`."""
    return any(letter in str(path) for letter in ODD)


def sqlite(path: Path, driver: str = "") -> str:
    """SQLAlchemy's URL of an SQLite file; SQLAlchemy escapes the characters of `ODD`."""
    if not odd(path):
        return f"sqlite{driver}:///{path}"
    from sqlalchemy import URL

    return URL.create(f"sqlite{driver}", database=str(path)).render_as_string()
