"""The trials of a search as a live table, or as lines where the output is no terminal."""

import logging

from rich.console import Console, Group, RenderableType
from rich.table import Table

from agepipe.search.progress import Line, Standing, in_words

ROWS = 12
"""Settings that the table shows: the best, and those in training."""
NAMES = {"macro_recall": "macro recall", "macro_f1": "macro F1", "within_one": "within one", "mae": "error, years"}


class Trials(logging.Handler):
    """Keeps the latest `Standing` to be drawn, and tells of finished rounds on the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._told: set[tuple[int, str]] = set()
        self.latest: Standing | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take in the record's standing."""
        standing: Standing | None = getattr(record, "standing", None)
        if standing is None or standing.seconds_left is None:
            return  # nothing is being trained: all was found
        self.latest = None if standing.over else standing
        if self._console.is_terminal:
            if standing.over and self._new(standing, "all"):
                self._console.print(drawn(standing))
            return
        for line in standing.lines:
            if line.judged and self._new(standing, in_words(line.settings)):
                self._console.print(f"{in_words(line.settings)}: {_score(line, standing)} after {_epochs(standing)}")

    def _new(self, standing: Standing, what: str) -> bool:
        new = (standing.until, what) not in self._told
        self._told.add((standing.until, what))
        return new


def drawn(standing: Standing) -> RenderableType:
    """The settings of this round, the best first; of many, only the best and those in training."""
    table = Table()
    table.add_column("setting", overflow="fold")
    table.add_column("folds", justify="right")
    table.add_column("training")
    table.add_column(NAMES.get(standing.metric, standing.metric), justify="right")
    shown = [line for place, line in enumerate(standing.lines) if place < ROWS or line.epochs]
    for line in shown:
        epochs = ", ".join(f"epoch {epoch}/{standing.until}" for epoch in line.epochs)
        score = "" if line.score is None else f"{line.score:.3f}" if line.judged else f"({line.score:.3f})"
        style = "bold green" if line is standing.best else ""
        table.add_row(in_words(line.settings), f"{len(line.scores)}/{line.folds}", epochs, score, style=style)
    if len(shown) < len(standing.lines):
        table.caption = f"and {len(standing.lines) - len(shown)} more settings"
    return Group(_title(standing), table)


def _title(standing: Standing) -> str:
    parts = [f"Search: {standing.done} of {standing.trials} trials done"]
    if standing.running:
        parts.append(f"{standing.running} running")
    if standing.until < standing.planned:
        parts.append(f"each to {_epochs(standing)}")
    if standing.best is not None:
        parts.append(f"best so far {_score(standing.best, standing)}")
    if standing.seconds_left:
        parts.append(f"about {duration(standing.seconds_left)} left")
    return ", ".join(parts)


def _epochs(standing: Standing) -> str:
    of = f" of {standing.planned}" if standing.until < standing.planned else ""
    return f"{standing.until}{of} epochs"


def _score(line: Line, standing: Standing) -> str:
    return f"{NAMES.get(standing.metric, standing.metric)} {line.score:.3f}"


def duration(seconds: float) -> str:
    """Seconds below half a minute, minutes below 90 of them, else hours."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
