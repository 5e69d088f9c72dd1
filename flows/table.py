"""What a user sees of a search: a live table in the terminal, or lines of text, and artifacts of its Prefect run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from rich.console import Console, Group, RenderableType
from rich.table import Table

from agepipe.search.progress import SearchState, SettingState, in_words

ROWS = 12
"""Settings that the table shows: the best, and those in training."""
NAMES = {"macro_recall": "macro recall", "macro_f1": "macro F1", "within_one": "within one", "mae": "error, years"}
SEND_EVERY = 1.0
"""Seconds between two updates of the progress artifact: a request to Prefect may take as long as a small trial."""


class SearchTable:
    """Shows a search on a console: a table for `rich.live.Live`, or a line per setting if it is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: set[tuple[int, str]] = set()
        self.latest: SearchState | None = None
        """The state that a live table draws; None while no trial is running."""

    def show(self, state: SearchState) -> None:
        """Show a new state, unless all results so far were cached."""
        if state.seconds_left is None:
            return
        self.latest = None if state.finished else state
        if self._console.is_terminal:
            if state.finished and self._first(state, "all"):
                self._console.print(drawn(state))
            return
        for one in state.settings:
            if one.complete and self._first(state, in_words(one.settings)):
                self._console.print(f"{in_words(one.settings)}: {_score(one, state)} after {_epochs(state)}")

    def _first(self, state: SearchState, what: str) -> bool:
        """Whether this is the first call with these arguments; each rung counts on its own."""
        first = (state.until, what) not in self._printed
        self._printed.add((state.until, what))
        return first


_terminals: list[SearchTable] = []


@contextmanager
def search_table(console: Console) -> Iterator[SearchTable]:
    """A table that shows the searches of this process while the block runs."""
    table = SearchTable(console)
    _terminals.append(table)
    try:
        yield table
    finally:
        _terminals.remove(table)


class SearchDisplay:
    """Shows a search in the terminal and as artifacts of the Prefect run in which it is created."""

    def __init__(self) -> None:
        from prefect import artifacts  # an optional dependency, and slow to import

        self._artifacts = artifacts
        created = artifacts.create_progress_artifact(progress=0.0, key="search", description="Trials of the search")
        assert isinstance(created, UUID)  # a coroutine in asynchronous flows only
        self._bar = created
        self._percent, self._sent = 0.0, time.monotonic()
        self._tables: set[int] = set()

    def show(self, state: SearchState) -> None:
        """Show a new state; the finished trials of a rung, or of the search, become a table artifact."""
        for terminal in _terminals:
            terminal.show(state)
        percent, now = round(100 * state.share, 1), time.monotonic()
        if percent > self._percent and (state.finished or now - self._sent > SEND_EVERY):
            self._percent, self._sent = percent, now
            self._artifacts.update_progress_artifact(self._bar, percent)
        if state.finished and state.settings and state.until not in self._tables:
            self._tables.add(state.until)
            words = f"Mean {state.metric} over folds after {state.until} of {state.epochs} epochs, the best first."
            self._artifacts.create_table_artifact(rows_of(state), key="search-settings", description=words)


def rows_of(state: SearchState) -> list[dict[str, Any]]:
    """The settings as rows of a table artifact."""
    return [
        {**one.settings, "epochs": state.until, "folds": f"{len(one.scores)}/{one.folds}", state.metric: one.score}
        for one in state.settings
    ]


def drawn(state: SearchState) -> RenderableType:
    """The settings as a table, the best first; of many, only the best and those in training."""
    table = Table()
    table.add_column("setting", overflow="fold")
    table.add_column("folds", justify="right")
    table.add_column("training")
    table.add_column(NAMES.get(state.metric, state.metric), justify="right")
    shown = [one for position, one in enumerate(state.settings) if position < ROWS or one.epochs]
    for one in shown:
        epochs = ", ".join(f"epoch {epoch}/{state.until}" for epoch in one.epochs)
        score = "" if one.score is None else f"{one.score:.3f}" if one.complete else f"({one.score:.3f})"
        style = "bold green" if one is state.best else ""
        table.add_row(in_words(one.settings), f"{len(one.scores)}/{one.folds}", epochs, score, style=style)
    if len(shown) < len(state.settings):
        table.caption = f"and {len(state.settings) - len(shown)} more settings"
    return Group(_title(state), table)


def _title(state: SearchState) -> str:
    parts = [f"Search: {state.done} of {state.trials} trials done"]
    if state.running:
        parts.append(f"{state.running} running")
    if state.until < state.epochs:
        parts.append(f"each to {_epochs(state)}")
    if state.best is not None:
        parts.append(f"best so far {_score(state.best, state)}")
    if state.seconds_left:
        parts.append(f"about {duration(state.seconds_left)} left")
    return ", ".join(parts)


def _epochs(state: SearchState) -> str:
    of = f" of {state.epochs}" if state.until < state.epochs else ""
    return f"{state.until}{of} epochs"


def _score(one: SettingState, state: SearchState) -> str:
    return f"{NAMES.get(state.metric, state.metric)} {one.score:.3f}"


def duration(seconds: float) -> str:
    """Seconds below half a minute, minutes below 90 of them, else hours."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
