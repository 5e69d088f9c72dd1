"""A training on several machines with a shared workspace: the first writes an invitation there, the others join it.

The invitation, and the slot of each machine, is a file that its process keeps locked. So the file of a killed process
is recognised by its missing lock, and the user need not number the machines.
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
from agepipe.core.errors import ConfigError, TrainingError, WorkerError, first_line
from agepipe.core.ports import bound
from agepipe.training.job import EpochEvent, Fitted, Job, Seat
from agepipe.training.workdir import fitting, machine_jobs, train_in_processes
from agepipe.training.worker import isolated_group

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two checks for an invitation."""

OnEpoch = Callable[[EpochEvent], None]


@dataclass(frozen=True)
class Invitation:
    """What another machine needs to join a training."""

    job: Job
    workspace: Path
    """Path of the workspace on the first machine; others may have it mounted at another path."""
    first: Seat
    """Seat of the first process."""

    def jobs(self, machine: int, workspace: Path) -> list[Job]:
        """The job of each process of a machine.

        Args:
            machine: number of the machine; the first, 0, invites, the others join.
            workspace: path of the workspace on that machine.

        Raises:
            TrainingError: a path of the job is not in the workspace.
        """
        folder, pixels = (self._local(path, workspace) for path in (self.job.folder, self.job.pixels))
        seat = replace(self.first, rank=machine * self.first.here)
        return machine_jobs(replace(self.job, folder=folder, pixels=pixels), seat)

    def _local(self, path: Path, workspace: Path) -> Path:
        if not path.is_relative_to(self.workspace) or ".." in (inside := path.relative_to(self.workspace)).parts:
            raise TrainingError(
                f"meet: the training uses {path}, which is not in the workspace {self.workspace} of the machine that "
                "invites; other machines may only be sent to files in the workspace that all of them see."
            )
        return workspace / inside


_FORM = TypeAdapter(Invitation)
"""Invitations are JSON, not pickle, so that a file in the workspace cannot run code on the machines that join."""


def train_on_machines(job: Job, runtime: Runtime, on_epoch: OnEpoch | None = None) -> Fitted:
    """Train with the processes of this machine, and of those that join it if `runtime.machines` is more than one.

    Args:
        job: the training.
        runtime: machines, processes, and the address where the machines meet.
        on_epoch: called after each epoch.

    Raises:
        AgepipeError: as `agepipe.training.loop.fit`.
        TrainingError: not all machines have joined within `agepipe.training.distributed.TIMEOUT`, another training
            uses the address, or a process on any of several machines died.
        ServiceError: the port of `runtime.meet` is in use.
        WorkerError: a process died, with one machine; the others are killed.
    """
    processes = runtime.processes_for(job.learn.batch)
    if runtime.machines == 1:
        return train_in_processes(job, processes, on_epoch)
    host, port = meeting(runtime.meet)
    invitation = Invitation(job, runtime.workspace, Seat(0, processes * runtime.machines, port, host, runtime.machines))
    bound("--meet", "0.0.0.0", port).close()
    with _published(invitation, runtime.meet, runtime):
        log.warning(
            "waiting for %d other machines: run `agepipe join %s` there, with this workspace",
            runtime.machines - 1, runtime.meet,
        )  # fmt: skip
        return _train(invitation.jobs(0, runtime.workspace), runtime.meet, on_epoch)


def join(meet: str, runtime: Runtime, on_epoch: OnEpoch | None = None, wait: float = math.inf) -> Fitted:
    """Wait for an invitation at an address, and take part in its training until it ends.

    Args:
        meet: HOST:PORT of the machine that invites.
        runtime: the workspace, which all machines share, possibly mounted at different paths.
        on_epoch: called after each epoch.
        wait: seconds to wait for a training to begin.

    Raises:
        ConfigError: `meet` is not HOST:PORT.
        TrainingError: no training has begun in time, all slots are taken, the training was interrupted, or the
            invitation is of another version or names a path outside of the workspace.
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
    with _slot(invitation, meet, runtime) as machine:
        return _train(invitation.jobs(machine, runtime.workspace), meet, on_epoch)


def _train(jobs: Sequence[Job], meet: str, on_epoch: OnEpoch | None) -> Fitted:
    try:
        return isolated_group(fitting, [(one,) for one in jobs], on_epoch)
    except WorkerError as error:  # on this machine, or because a process of another machine ended
        raise TrainingError(
            f"meet: the training at {meet} was interrupted ({error}); run the same commands again on all machines to "
            "resume from the last checkpoint."
        ) from error


def invited(meet: str, runtime: Runtime) -> Invitation | None:
    """The present invitation at an address; None if there is none.

    Raises:
        TrainingError: the file was not written by this version of agepipe.
    """
    path = _file(meet, runtime)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        if _lock(file, fcntl.LOCK_SH):
            return None  # the process that wrote it was killed
        try:
            return _FORM.validate_json(file.read())
        except (ValidationError, ConfigError) as error:
            raise TrainingError(
                f"{path}: not an invitation of this version of agepipe ({first_line(error)}); install the "
                "same version on all machines, or delete the file if no run made it."
            ) from error


@contextmanager
def _published(invitation: Invitation, meet: str, runtime: Runtime) -> Iterator[None]:
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
            for slot in path.parent.glob(f"{path.name}-*"):
                slot.unlink(missing_ok=True)


@contextmanager
def _slot(invitation: Invitation, meet: str, runtime: Runtime) -> Iterator[int]:
    """Lock the lowest free number of a machine."""
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
    """Lock a file without waiting; False if another process has locked it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
