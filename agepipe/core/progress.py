"""How work says how far it is, without knowing who watches."""

from typing import Protocol


class Progress(Protocol):
    """Called by long work after each unit; the watcher decides what to show."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units are finished; `note` is a few words on the latest (a score, a rate)."""


def silent(done: int, total: int, note: str = "") -> None:
    """The watcher for whom nobody asked."""
