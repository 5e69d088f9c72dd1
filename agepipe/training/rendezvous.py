"""One training on several machines that see one workspace: the first leaves an invitation there, the others follow it.

The invitation, and each machine's place in the training, is a file that is locked for as long as it is used. So one
whose maker was killed is told from one that stands, and nobody has to number machines.
"""

import fcntl
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter, ValidationError

from agepipe.config.runtime import Runtime, meeting
from agepipe.core.errors import ConfigError, TrainingError, WorkerError
from agepipe.core.ports import bound
from agepipe.training.job import EpochEvent, Fitted, Job, Seat
from agepipe.training.workdir import beside, fitting, shared
from agepipe.training.worker import together

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two looks for an invitation."""

OnEpoch = Callable[[EpochEvent], None]


@dataclass(frozen=True)
class Invitation:
    """What a machine must know to take part in a training."""

    job: Job
    workspace: Path
    """As the machine that invites sees it; the others may see it elsewhere."""
    first: Seat
    """That of the first process of all."""

    def jobs(self, machine: int, workspace: Path) -> list[Job]:
        """The training as each process of a machine sees it: the first one, 0, invites, the others join."""
        folder, pixels = (self._seen(path, workspace) for path in (self.job.folder, self.job.pixels))
        seat = replace(self.first, rank=machine * self.first.here)
        return beside(replace(self.job, folder=folder, pixels=pixels), seat)

    def _seen(self, path: Path, workspace: Path) -> Path:
        if not path.is_relative_to(self.workspace) or ".." in (inside := path.relative_to(self.workspace)).parts:
            raise TrainingError(
                f"meet: the training uses {path}, which is not in the workspace {self.workspace} of the machine that "
                "invites; other machines may only be sent to files in the workspace that all of them see."
            )
        return workspace / inside


_FORM = TypeAdapter(Invitation)
"""How an invitation is written, as JSON: whoever may write to the workspace must not run code on those who join."""


def across(job: Job, runtime: Runtime, on_epoch: OnEpoch | None = None) -> Fitted:
    """Train with the processes of this machine, and of those that join it where `runtime.machines` are several.

    Raises:
        AgepipeError: as `agepipe.training.loop.fit`.
        TrainingError: not all machines have come within `agepipe.training.distributed.TIMEOUT`, another training waits
            there, or a process on any of the machines died.
        ServiceError: the port of `runtime.meet` is in use.
        WorkerError: a process died where there is one machine; the others are ended.
    """
    here = runtime.processes_for(job.learn.batch)
    if runtime.machines == 1:
        return shared(job, here, on_epoch)
    host, port = meeting(runtime.meet)
    invitation = Invitation(job, runtime.workspace, Seat(0, here * runtime.machines, port, host, runtime.machines))
    bound("--meet", "0.0.0.0", port).close()
    with _left(invitation, runtime.meet, runtime):
        log.warning(
            "waiting for %d other machines: run `agepipe join %s` there, with this workspace",
            runtime.machines - 1, runtime.meet,
        )  # fmt: skip
        return _together(invitation.jobs(0, runtime.workspace), runtime.meet, on_epoch)


def join(meet: str, runtime: Runtime, on_epoch: OnEpoch | None = None, wait: float = math.inf) -> Fitted:
    """Wait for the training that meets there, take part in it, and end with it.

    Args:
        meet: HOST:PORT of the machine that invites.
        runtime: the workspace, which all machines see, though perhaps each in a place of its own.
        on_epoch: called after each epoch.
        wait: seconds after which it gives up waiting for a training to begin.

    Raises:
        ConfigError: `meet` is no address.
        TrainingError: no training has begun in time, all places are taken, the training broke off, or what invites is
            no invitation of this version or leads out of the workspace.
        AgepipeError: as `agepipe.training.loop.fit`.
    """
    meeting(meet)
    end = time.monotonic() + wait
    while (invitation := invited(meet, runtime)) is None:
        if time.monotonic() >= end:
            raise TrainingError(
                f"meet: no training has begun at {meet} within {wait:g} s; its result may be there already, or it sees "
                f"another workspace than {runtime.workspace}. Look at the machine that runs it, then join again."
            )
        time.sleep(PAUSE)
    with _place(invitation, meet, runtime) as machine:
        return _together(invitation.jobs(machine, runtime.workspace), meet, on_epoch)


def _together(jobs: Sequence[Job], meet: str, on_epoch: OnEpoch | None) -> Fitted:
    try:
        return together(fitting, [(one,) for one in jobs], on_epoch)
    except WorkerError as error:  # of this machine, or because another has left
        raise TrainingError(
            f"meet: the training at {meet} broke off ({error}); give the same commands again on all machines, and it "
            "goes on from the last checkpoint."
        ) from error


def invited(meet: str, runtime: Runtime) -> Invitation | None:
    """The invitation to a training that meets there, if one stands.

    Raises:
        TrainingError: the file is none that this version of agepipe wrote.
    """
    path = _file(meet, runtime)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        if _lock(file, fcntl.LOCK_SH):
            return None  # its maker was killed
        try:
            return _FORM.validate_json(file.read())
        except (ValidationError, ConfigError) as error:
            raise TrainingError(
                f"{path}: not an invitation of this version of agepipe ({str(error).splitlines()[0]}); install the "
                "same version on all machines, or delete the file if no run made it."
            ) from error


@contextmanager
def _left(invitation: Invitation, meet: str, runtime: Runtime) -> Iterator[None]:
    if invited(meet, runtime) is not None:
        raise TrainingError(f"meet: another training waits at {meet}; give another port.")
    path = _file(meet, runtime)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}").open("wb") as draft:
        fcntl.flock(draft, fcntl.LOCK_EX)
        draft.write(_FORM.dump_json(invitation))
        draft.flush()
        Path(draft.name).replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            for place in path.parent.glob(f"{path.name}-*"):
                place.unlink(missing_ok=True)


@contextmanager
def _place(invitation: Invitation, meet: str, runtime: Runtime) -> Iterator[int]:
    """The first machine's number that no other has."""
    path = _file(meet, runtime)
    for machine in range(1, invitation.first.machines):
        with path.with_name(f"{path.name}-{machine}").open("wb") as file:
            if _lock(file, fcntl.LOCK_EX):
                yield machine
                return
    raise TrainingError(
        f"meet: all places at {meet} are taken: the run asked for {invitation.first.machines} machines; start it again "
        "with more, or do not join from here."
    )


def _file(meet: str, runtime: Runtime) -> Path:
    return runtime.workspace / "machines" / meet.replace(":", "-")


def _lock(file: IO[bytes], kind: int) -> bool:
    """Lock it unless another has."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
