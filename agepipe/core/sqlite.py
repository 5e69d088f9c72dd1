"""The address of an SQLite file, as SQLAlchemy reads it."""

from pathlib import Path

ODD = "%?#"
"""Letters of a path that mean something else in the address of a database."""


def odd(path: Path) -> bool:
    """Whether the path has letters that mean something else in the address of a database."""
    return any(letter in str(path) for letter in ODD)


def sqlite(path: Path, driver: str = "") -> str:
    """SQLAlchemy's address of an SQLite file; it knows itself how it reads letters that have a meaning."""
    if not odd(path):
        return f"sqlite{driver}:///{path}"
    from sqlalchemy import URL

    return URL.create(f"sqlite{driver}", database=str(path)).render_as_string()
