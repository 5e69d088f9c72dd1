"""The ranks that a launcher has started: rank 0 runs the command, and the others take part in its final trainings.

They meet in a `torch.distributed.TCPStore` at MASTER_ADDR:MASTER_PORT, which lives as long as the command. Rank 0 first
compares all ranks with itself. It then writes each training into the store as JSON, and at the end how the command
ended. The training processes find each other through the same store.

The store of torchrun outlives a restart of its ranks. So each command takes a random name for its keys, and tells it
only to ranks that wait now.
"""

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.config.torchvision_models import is_file
from agepipe.core.artifacts import turn
from agepipe.core.errors import AgepipeError, ConfigError, DiedError, TrainingError, WorkerError, first_line
from agepipe.core.ports import bound
from agepipe.core.provenance import version
from agepipe.training.job import EpochEvent, Fitted, Job, Seat
from agepipe.training.launcher import Position
from agepipe.training.workdir import fitting, threads, train_in_processes
from agepipe.training.worker import GRACE, isolated_group

if TYPE_CHECKING:  # a command that no launcher has started never imports torch
    from torch.distributed import Store

ARRIVAL = timedelta(minutes=10)
"""Time within which all ranks must have started."""
ATTEMPT = timedelta(seconds=5)
"""Duration of one attempt to connect."""
PAUSE = 0.2
"""Seconds between two looks into the store."""
BEAT = 2.0
"""Seconds between two signs of life."""
LOST = 60.0
"""Seconds without a sign of life after which a rank counts as lost."""
FAREWELL = 10.0
"""Seconds for which rank 0 keeps its store open, so that the others learn how the command ended."""
KEYS = "agepipe"
"""Prefix of all keys, since the store may be that of torchrun."""
PIECE = 1 << 20
"""Characters of a value in the store, which refuses values of more than 8 MiB."""
AGAIN = "run the same command again on all machines; a training resumes from its last checkpoint"

OnEpoch = Callable[[EpochEvent], None]


@dataclass(frozen=True)
class Shared:
    """A training as the other ranks receive it."""

    job: Job
    pixels: str
    """Path of the pixel store in the workspace, which each rank has in a place of its own."""
    from_file: bool
    """Whether the first weights are a file of rank 0."""

    def job_here(self, seat: Seat, folder: Path, runtime: Runtime, gpu: int | None) -> Job:
        """The job of a rank.

        Args:
            seat: its seat.
            folder: a folder of its own.
            runtime: its workspace, into which pixels are fetched that only the bucket has.
            gpu: index of its GPU.

        Raises:
            TrainingError: the path leads out of the workspace, or the workspace does not have the pixels.
            StorageError: the bucket cannot be used.
        """
        path = PurePosixPath(self.pixels)
        if path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
            raise TrainingError(
                f"pixels: rank 0 sent the path '{self.pixels}', which is not in a folder of a workspace."
            )
        result = runtime.workspace.joinpath(*path.parts[:2])
        if runtime.bucket:
            with turn(result):
                runtime.mirror.settle(result)
        pixels = runtime.workspace / path
        if not pixels.is_file():
            raise TrainingError(
                f"--workspace: {runtime.workspace} does not have {self.pixels}, which rank 0 trains on."
            )
        learn = self.job.learn
        if self.from_file:
            learn = learn.model_copy(update={"weights": "none"})  # the training copies the weights of rank 0
        return replace(
            self.job, folder=folder, pixels=pixels, learn=learn, threads=threads(learn, runtime), gpu=gpu, seat=seat
        )


@dataclass(frozen=True)
class Came:
    """What a rank writes when it comes."""

    name: str
    """A random name of the process."""
    host: str
    facts: dict[str, str]
    """What must be the same on all ranks, by name."""


FORM, CAME = TypeAdapter(Shared), TypeAdapter(Came)
"""All is sent as JSON, not as pickles, so that whoever reaches the store cannot run code on the machines."""


class Ranks:
    """The ranks of a command, as one of them sees them."""

    def __init__(self, position: Position, store: "Store", session: str, runtime: Runtime) -> None:
        from torch.distributed import PrefixStore

        self.position, self.runtime, self.session = position, runtime, session
        self.shared, self.store = store, PrefixStore(session, store)
        self.hosts: dict[int, str] = {}
        """Names of the machines of the other ranks, as rank 0 has found them."""
        self._trainings = count()

    def train(self, job: Job, on_epoch: OnEpoch | None) -> Fitted:
        """Train on all ranks, as rank 0.

        Raises:
            AgepipeError: as `agepipe.training.loop.fit`.
            ConfigError: a batch has fewer rows than there are ranks.
            TrainingError: another rank cannot take part, or a process of the training was lost.
        """
        check_batch(self.position, job.learn.batch)
        number, pixels = next(self._trainings), job.pixels.relative_to(self.runtime.workspace).as_posix()
        with _connected(self.position):
            self._send(f"training/{number}", FORM.dump_json(Shared(job, pixels, is_file(job.learn.weights))).decode())
            try:
                self._await_ready(number)
            except AgepipeError:
                self.store.set(f"begin/{number}", "no")  # those that are ready wait for the next training
                raise
            self.store.set(f"begin/{number}", "yes")
            try:
                return isolated_group(fitting, [(replace(job, seat=self._seat(number), gpu=self._gpu),)], on_epoch)
            except DiedError as error:
                raise self._interrupted(f"rank 0: {error}") from error
            except WorkerError as error:  # the connection to another rank was lost
                raise self._interrupted(self._cause(number) or first_line(error)) from error

    def take_part(self, on_epoch: OnEpoch | None = None) -> int:
        """Take part in all trainings of rank 0, as another rank, until its command ends.

        Returns:
            The number of trainings.

        Raises:
            TrainingError: rank 0 failed or was lost.
        """
        with _connected(self.position), self._beating():
            for number in count():
                if not self._await(f"training/{number}"):
                    reason = self.store.get("end").decode()
                    self.store.set(f"left/{self.position.rank}", "")
                    if reason:
                        raise TrainingError(f"rank 0 has failed: {reason}")
                    return number
                try:
                    self._train(number, on_epoch)
                except AgepipeError as error:  # rank 0 decides what follows
                    self._fail(number, "" if type(error) is WorkerError else str(error))  # that one lost another rank
                except Exception as error:
                    self._fail(number, f"{type(error).__name__}: {first_line(error)}")
                    raise
        raise AssertionError("`count` has no end")

    def end(self, reason: str) -> None:
        """Tell the other ranks how the command of rank 0 ended, empty if well, and wait until they know."""
        with suppress(RuntimeError):  # the store of torchrun may be gone
            self.store.set("end", reason)
            keys, until = [f"left/{rank}" for rank in self.hosts], time.monotonic() + FAREWELL
            while keys and not self.store.check(keys) and time.monotonic() < until:
                time.sleep(PAUSE)

    def _train(self, number: int, on_epoch: OnEpoch | None) -> None:
        try:
            shared = FORM.validate_json(self._received(f"training/{number}"))
        except (ValueError, ConfigError) as error:
            raise TrainingError(f"rank 0 sent no training of this version of agepipe ({first_line(error)}).") from error
        with tempfile.TemporaryDirectory(prefix="agepipe-") as folder:
            job = shared.job_here(self._seat(number), Path(folder), self.runtime, self._gpu)
            self.store.set(f"ready/{number}/{self.position.rank}", "")
            if self._await(f"begin/{number}") and self.store.get(f"begin/{number}") == b"yes":
                isolated_group(fitting, [(job,)], on_epoch)

    def _fail(self, number: int, cause: str) -> None:
        self.store.set(f"failed/{number}/{self.position.rank}", cause)

    def _seat(self, number: int) -> Seat:
        one = self.position
        return Seat(one.rank, one.count, one.port, one.host, f"{self.session}/group/{number}")

    @property
    def _gpu(self) -> int | None:
        return self.position.local_rank % gpus if (gpus := self.runtime.gpu_count) else None

    def _send(self, key: str, text: str) -> None:
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        for number, piece in enumerate(pieces):
            self.store.set(f"{key}/{number}", piece)
        self.store.set(key, str(len(pieces)))

    def _received(self, key: str) -> bytes:
        return b"".join(self.store.get(f"{key}/{number}") for number in range(int(self.store.get(key))))

    def _await_ready(self, number: int) -> None:
        """Wait until all other ranks are ready for a training."""
        beats: dict[int, tuple[int, float]] = {}
        left = set(self.hosts)
        while left:
            for rank in sorted(left):
                if cause := self._cause_of(number, rank):
                    raise self._interrupted(cause)
                if self.store.check([f"ready/{number}/{rank}"]):
                    left.discard(rank)
                beat = self.store.add(f"alive/{rank}", 0)
                last, since = beats.get(rank, (-1, 0.0))
                if beat != last:
                    beats[rank] = (beat, time.monotonic())
                elif time.monotonic() - since > LOST:
                    raise self._interrupted(f"rank {rank} on {self.hosts[rank]} was lost")
            time.sleep(PAUSE)

    def _cause(self, number: int) -> str:
        """Why a training was interrupted, as another rank says; empty if none says so soon."""
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if found := "".join(self._cause_of(number, rank) for rank in self.hosts):
                return found
            time.sleep(PAUSE)
        return ""

    def _cause_of(self, number: int, rank: int) -> str:
        key = f"failed/{number}/{rank}"
        reason = self.store.get(key).decode() if self.store.check([key]) else ""
        return f"rank {rank} on {self.hosts[rank]}: {reason}" if reason else ""

    def _interrupted(self, cause: str) -> TrainingError:
        return TrainingError(
            f"the training of {self.position.count} ranks was interrupted: {cause.rstrip('.')}; {AGAIN}."
        )

    def _await(self, key: str) -> bool:
        """Wait for a key of rank 0; False if its command has ended instead."""
        while not self.store.check([key]):
            if self.store.check(["end"]):
                return False
            time.sleep(PAUSE)
        return True

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Give signs of life in a thread."""
        over = threading.Event()

        def beat() -> None:
            with suppress(RuntimeError):  # the store is gone, which the other thread notices too
                while not over.wait(BEAT):
                    self.store.add(f"alive/{self.position.rank}", 1)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


_first: Ranks | None = None
"""The ranks of the command that this process runs as rank 0."""


def train_together(job: Job, runtime: Runtime, on_epoch: OnEpoch | None = None) -> Fitted:
    """Train with all ranks of this command, or else with the processes of this machine.

    Args:
        job: the training; its pixels lie in the workspace.
        runtime: number of processes.
        on_epoch: called after each epoch.

    Raises:
        AgepipeError: as `agepipe.training.loop.fit`, `Ranks.train` and `agepipe.training.workdir.train_in_processes`.
    """
    if _first is not None:
        return _first.train(job, on_epoch)
    return train_in_processes(job, runtime.processes_for(job.learn.batch), on_epoch)


def check_batch(position: Position, batch: int) -> None:
    """Refuse more ranks than a batch has rows.

    Raises:
        ConfigError: names both numbers.
    """
    if position.count > batch:
        raise ConfigError(
            f"learn.batch: {batch} rows for {position.count} ranks of the launcher; start at most one rank a row."
        )


def ranked(position: Position, configs: Sequence[Config], runtime: Runtime) -> Runtime:
    """The runtime of a rank, whose processes are the ranks on this machine.

    Raises:
        ConfigError: the user has set a number of processes, or there are more ranks than rows in a batch.
    """
    if runtime.processes is not None:
        raise ConfigError(
            f"processes: {runtime.processes}, but a launcher has started this process as rank {position.rank} of "
            f"{position.count}; leave it out, and let the launcher start as many ranks as you want."
        )
    for config in configs:
        config.search.check_each(config.learn, lambda learn: check_batch(position, learn.batch))
    return runtime.model_copy(update={"processes": position.local_count})


@contextmanager
def met(position: Position, configs: Sequence[Config], runtime: Runtime) -> Iterator[Ranks]:
    """The ranks of a command, once all have come; when the block ends, rank 0 tells the others how.

    Args:
        position: which rank this process is.
        configs: what the command runs.
        runtime: workspace and device.

    Raises:
        TrainingError: not all ranks have come within `ARRIVAL`, one differs from rank 0, or rank 0 failed or was lost.
        ServiceError: the port is in use.
    """
    global _first
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch would log each attempt to connect
    facts = _facts(configs, runtime)
    if position.rank > 0:
        yield _join(position, facts, runtime)
        return
    ranks = Ranks(position, _hosted(position), uuid.uuid4().hex, runtime)
    try:
        with _connected(position):
            _gather(ranks, facts)
        _first = ranks
        yield ranks
    except BaseException as error:
        ranks.end(first_line(error) if isinstance(error, AgepipeError) else type(error).__name__)
        raise
    else:
        ranks.end("")
    finally:
        _first = None


def _facts(configs: Sequence[Config], runtime: Runtime) -> dict[str, str]:
    """What must be the same on all ranks, by name."""
    facts = {name: version(name) for name in ("agepipe", "torch")}
    facts |= {"--workspace": runtime.bucket or "a folder", "--device": runtime.device, "GPUs": _some(runtime.gpu_count)}
    for config in configs:
        of = f" of {config.title}" if len(configs) > 1 else ""
        facts |= {name + of: value for name, value in _flat(config.model_dump(mode="json"))}
    return facts


def _some(number: int) -> str:
    return "some" if number else "none"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, json.dumps(value)


def _hosted(position: Position) -> "Store":
    """The store of rank 0: its own, or that of torchrun."""
    from torch.distributed import PrefixStore, TCPStore

    if position.hosted:
        return _client(position)
    bound("MASTER_PORT", "0.0.0.0", position.port).close()
    return PrefixStore(KEYS, TCPStore("127.0.0.1", position.port, is_master=True, wait_for_workers=False))


def _client(position: Position) -> "Store":
    from torch.distributed import DistError, PrefixStore, TCPStore

    until = time.monotonic() + ARRIVAL.total_seconds()
    while True:
        try:
            store = TCPStore(position.host, position.port, timeout=ATTEMPT)
        except DistError as error:  # short attempts, since no signal is handled during one
            if time.monotonic() > until:
                raise TrainingError(
                    f"rank 0 has not come to {position.host}:{position.port} (MASTER_ADDR, MASTER_PORT) within "
                    f"{ARRIVAL.total_seconds():.0f} s; start the same command on all machines, and let them reach it."
                ) from error
        else:
            store.set_timeout(ARRIVAL)
            return PrefixStore(KEYS, store)


def _join(position: Position, facts: Mapping[str, str], runtime: Runtime) -> Ranks:
    """Come to rank 0, as another rank, and learn the name of its keys."""
    store, name, until = _client(position), uuid.uuid4().hex, time.monotonic() + ARRIVAL.total_seconds()
    with _connected(position):
        store.set(f"come/{position.rank}", CAME.dump_json(Came(name, socket.gethostname(), dict(facts))).decode())
        while not store.check([f"session/{name}"]):
            if time.monotonic() > until:
                raise TrainingError(
                    f"rank 0 at {position.host}:{position.port} has not answered within {ARRIVAL.total_seconds():.0f} "
                    "s; start the same command on all machines."
                )
            time.sleep(PAUSE)
        ranks = Ranks(position, store, store.get(f"session/{name}").decode(), runtime)
        sees = bool(runtime.bucket) or (runtime.workspace / _token(ranks)).exists()
        ranks.store.set(f"sees/{position.rank}", str(runtime.workspace) if not sees else "")
    return ranks


def _gather(ranks: Ranks, facts: Mapping[str, str]) -> None:
    """Wait for all other ranks, as rank 0, and compare them with this one."""
    one, until = ranks.position, time.monotonic() + ARRIVAL.total_seconds()
    token = ranks.runtime.workspace / _token(ranks)
    if not ranks.runtime.bucket:
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch()
    try:
        left = set(range(1, one.count))
        while left:
            for rank in sorted(left):
                if _has_come(ranks, rank, facts):
                    left.discard(rank)
            if time.monotonic() > until:
                raise TrainingError(
                    f"{len(left)} of {one.count} ranks have not come to {one.host}:{one.port} within "
                    f"{ARRIVAL.total_seconds():.0f} s, rank {min(left)} first; start the same command on all machines."
                )
            time.sleep(PAUSE)
    finally:
        token.unlink(missing_ok=True)


def _has_come(ranks: Ranks, rank: int, facts: Mapping[str, str]) -> bool:
    """Answer a rank that has come, and compare it once it has received the answer.

    What it has written may be left from before a restart of torchrun, so the answer is for that process alone.
    """
    if not ranks.shared.check([f"come/{rank}"]):
        return False
    try:
        came = CAME.validate_json(ranks.shared.get(f"come/{rank}"))
    except ValidationError as error:
        raise TrainingError(f"rank {rank} is no agepipe of this version; start the same command everywhere.") from error
    ranks.shared.set(f"session/{came.name}", ranks.session)
    if not ranks.store.check([f"sees/{rank}"]):
        return False
    ranks.hosts[rank] = came.host
    for name in (*facts, *came.facts):
        mine, theirs = facts.get(name, "nothing"), came.facts.get(name, "nothing")
        if mine != theirs:
            raise TrainingError(
                f"{name}: {theirs} on rank {rank} ({came.host}), but {mine} on rank 0 ({socket.gethostname()}); start "
                "the same command with the same version on all machines."
            )
    if unseen := ranks.store.get(f"sees/{rank}").decode():
        raise TrainingError(
            f"--workspace: {unseen} on rank {rank} ({came.host}) is another folder than {ranks.runtime.workspace} on "
            f"rank 0 ({socket.gethostname()}); take a folder that all machines share, or s3://BUCKET/FOLDER."
        )
    return True


def _token(ranks: Ranks) -> str:
    """Name of a file in the workspace by which the others see whether it is the same folder."""
    return f".rank-0-{ranks.session}"


@contextmanager
def _connected(position: Position) -> Iterator[None]:
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        raise TrainingError(f"rank 0 at {position.host}:{position.port} was lost; {AGAIN}.") from error
