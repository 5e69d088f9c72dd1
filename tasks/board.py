"""How a search is watched: each trial says in a small file how far it is, and the search's flow reads them all.

Trials may run in threads, in other processes or on other machines; what all of them see is the workspace.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.progress import Progress
from agepipe.search.progress import Place, Scoreboard, Standing, rows_of, standings
from agepipe.search.records import Trial
from agepipe.search.trial import Planned
from tasks.context import parent_of

logger = logging.getLogger("agepipe.progress")

SEND_EVERY = 1.0
"""Seconds between two updates of Prefect's artifact: a request to its server may take as long as a small trial."""


def reach(runtime: Runtime, place: Place, epoch: int) -> None:
    """Say how far a trial is: the file's name is its place, its content the epoch."""
    folder = _folder(runtime)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{place[0]}-{place[1]}"
    draft.write_text(str(epoch), encoding="utf-8")
    draft.replace(folder / draft.name[1:])


def reached(runtime: Runtime) -> dict[Place, int]:
    """How far the trials are that run, or have run, in this search."""
    found: dict[Place, int] = {}
    for path in _folder(runtime).glob("[0-9]*-[0-9]*"):
        setting, _, fold = path.name.partition("-")
        with suppress(FileNotFoundError):  # a search elsewhere in this workspace has just ended
            found[int(setting), int(fold)] = int(path.read_text(encoding="utf-8"))
    return found


def _folder(runtime: Runtime) -> Path:
    return runtime.workspace / "progress" / (parent_of(runtime) or "alone")


def watch_trial(runtime: Runtime, place: Place, name: str, epoch: int) -> Progress:
    """A progress callback for a trial that begins after `epoch`."""
    reach(runtime, place, epoch)

    def report(done: int, total: int, note: str = "") -> None:
        reach(runtime, place, done)
        logger.info("%s: epoch %d of %d, %s", name, done, total, note)

    return report


class Board:
    """Shows a search as it goes: as log records that carry a `Standing`, and as artifacts of the Prefect run."""

    def __init__(self, search: SearchSettings, learn: LearnSettings, runtime: Runtime) -> None:
        self._score = Scoreboard(search, learn)
        self._where = runtime
        self._start = time.monotonic()
        self._progress = _created()
        self._shown, self._sent = 0.0, time.monotonic()

    def begin(self, planned: Sequence[Planned], until: int | None) -> None:
        """Expect these trials; in a new round those that go on have not yet begun to."""
        if self._score.begin(planned, until):
            rmtree(_folder(self._where), ignore_errors=True)

    def update(self, trials: Sequence[Trial | None]) -> None:
        """Take in the trials that are finished, and look how far the others are."""
        self._score.finished(one for one in trials if one is not None)
        self._score.reached(reached(self._where))
        standing = self.standing
        standings.debug("%d of %d trials", standing.done, standing.trials, extra={"standing": standing})
        if time.monotonic() - self._sent > SEND_EVERY:
            self._send()

    def _send(self) -> None:
        share = round(100 * self._score.share(), 1)
        if share > self._shown:
            self._shown, self._sent = share, time.monotonic()
            update_progress_artifact(self._progress, share)

    def end(self) -> None:
        """Leave the settings of this round as a table on the Prefect run, once all are judged."""
        self._score.end()
        self._send()
        standing = self.standing
        if standing.lines and standing.over:
            standings.debug("the end of a round", extra={"standing": standing})
            create_table_artifact(rows_of(standing), key="search-settings", description=_words(standing))

    @property
    def standing(self) -> Standing:
        """How the search stands now."""
        return self._score.standing(time.monotonic() - self._start)


def _created() -> UUID:
    made = create_progress_artifact(progress=0.0, key="search", description="Trials of the search")
    assert isinstance(made, UUID)  # a coroutine in asynchronous flows only
    return made


def _words(standing: Standing) -> str:
    return f"Mean {standing.metric} over folds after {standing.until} of {standing.planned} epochs, the best first."


@contextmanager
def board(search: SearchSettings, learn: LearnSettings, runtime: Runtime) -> Iterator[Board]:
    """The board of one search; what trials note is removed before and after."""
    rmtree(_folder(runtime), ignore_errors=True)
    try:
        yield Board(search, learn, runtime)
    finally:
        rmtree(_folder(runtime), ignore_errors=True)
