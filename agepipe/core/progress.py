"""Progress callbacks of long work."""

from typing import Protocol


class Progress(Protocol):
    """A callback that long work calls after each unit; it decides what to show."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units are finished; `note` is a few words on the last one (a score, a rate)."""


def silent(done: int, total: int, note: str = "") -> None:
    """A progress callback that does nothing."""
