"""The ranks of a command: how they meet, what they send each other, and how they end."""

import dataclasses
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from commands import free_port
from torch.distributed import PrefixStore, TCPStore
from trainings import job_with, state

from agepipe.config import presets
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.artifacts import write_manifest
from agepipe.core.errors import ConfigError, DivergedError, ServiceError, TrainingError
from agepipe.core.ports import bound
from agepipe.training import ranks
from agepipe.training.job import Job, Seat
from agepipe.training.launcher import Position
from agepipe.training.loop import BEST, CHECKPOINT
from agepipe.training.ranks import CAME, FORM, Came, Ranks, Shared, met, ranked, train_together
from agepipe.training.workdir import train_in_processes

if TYPE_CHECKING:
    from hostile import Hostile

pytest.importorskip("lightning_fabric", reason="needs the extra distributed")

pytestmark = pytest.mark.timeout(600)

CONFIG = Config()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "PAUSE", 0.02)
    monkeypatch.setattr(ranks, "ATTEMPT", timedelta(seconds=1))
    monkeypatch.setattr(ranks, "FAREWELL", 3.0)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def job(job: Job, tmp_path: Path) -> Job:
    """As the pipeline has it: the pixels lie in a finished result of the workspace."""
    folder = tmp_path / "workspace" / "datasets" / "faces-0"
    folder.mkdir(parents=True)
    write_manifest(folder, "ingest", {}, {}, {})
    return dataclasses.replace(job, pixels=Path(shutil.copy(job.pixels, folder)))


@pytest.fixture
def here(job: Job, tmp_path: Path) -> Runtime:
    """The runtime of rank 0; the job lies in its workspace."""
    return Runtime(workspace=tmp_path / "workspace", device="cpu", processes=1)


class Other:
    """Another rank of a command, in a thread of this process."""

    def __init__(self, port: int, runtime: Runtime, rank: int = 1, count: int = 2, config: Config = CONFIG) -> None:
        self.error: Exception | None = None
        self.trainings: int | None = None
        self.position = Position(rank, count, "127.0.0.1", port)
        self.runtime, self.config = runtime, config
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with met(self.position, [self.config], self.runtime) as one:
                self.trainings = one.take_part()
        except Exception as error:  # noqa: BLE001  the test asks for it
            self.error = error

    def ended(self) -> Exception | None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


def leading(port: int, runtime: Runtime, count: int = 2, config: Config = CONFIG) -> Any:
    return met(Position(0, count, "127.0.0.1", port), [config], runtime)


def same(one: Job, other: Job) -> bool:
    columns = zip(
        (*vars(one.train).values(), *vars(one.validation).values()),
        (*vars(other.train).values(), *vars(other.validation).values()),
        strict=True,
    )
    plain = [dataclasses.replace(job, train=other.train, validation=other.validation) for job in (one, other)]
    return plain[0] == plain[1] and all(a.dtype == b.dtype and (a == b).all() for a, b in columns)


def equal(one: Job, other: Job) -> bool:
    """Whether two trainings saved the same weights, bit for bit."""
    pairs = [(state(one, name)["network"], state(other, name)["network"]) for name in (CHECKPOINT, BEST)]
    return all(torch.equal(first[key], second[key]) for first, second in pairs for key in first)


@pytest.fixture
def elsewhere(here: Runtime, tmp_path: Path) -> Runtime:
    """The same workspace, as another machine has mounted it."""
    (tmp_path / "mounted").symlink_to(here.workspace)
    return here.model_copy(update={"workspace": tmp_path / "mounted"})


@pytest.mark.slow
def test_two_ranks_give_what_two_processes_give_bit_for_bit(
    job: Job, here: Runtime, elsewhere: Runtime, port: int
) -> None:
    alone = job_with(job, "alone")
    expected = train_in_processes(alone, 2)
    other = Other(port, elsewhere)
    epochs: list[int] = []
    with leading(port, here):
        found = train_together(job, here, lambda event: epochs.append(event.epoch))
    assert other.ended() is None
    assert other.trainings == 1
    assert epochs == [1, 2, 3]
    assert (found.best, found.metrics) == (expected.best, expected.metrics)
    assert equal(job, alone)


@pytest.mark.slow
def test_ranks_that_share_only_a_bucket_resume_with_weights_of_a_file_that_only_the_first_has(
    job: Job, here: Runtime, port: int, tmp_path: Path
) -> None:
    train_in_processes(job_with(job, "first", epochs=1), 1)
    weights = tmp_path / "first.pt"
    shutil.copy(job.folder.with_name("first") / BEST, weights)
    job, alone = (job_with(job, name, weights=str(weights), epochs=2) for name in ("job", "alone"))
    train_in_processes(alone, 2)

    bucket = here.model_copy(update={"bucket": f"file://{tmp_path}/bucket"})
    bucket.mirror.settle(job.pixels.parent)
    far = bucket.model_copy(update={"workspace": tmp_path / "far"})
    for until in (1, None):
        other = Other(port, far)
        with leading(port, bucket):
            train_together(dataclasses.replace(job, until=until), bucket)
        assert other.ended() is None
    assert equal(job, alone)
    assert [path.name for path in far.workspace.iterdir()] == ["datasets"]


@pytest.mark.slow
def test_a_training_that_diverges_ends_all_ranks_and_a_second_one_is_shared_again(
    job: Job, here: Runtime, elsewhere: Runtime, port: int
) -> None:
    explosive = job_with(job, "explosive", lr=10.0, momentum=0.99, l1=10.0, epochs=20, optimizer="sgd")
    other = Other(port, elsewhere)
    with leading(port, here):
        with pytest.raises(DivergedError):
            train_together(explosive, here)
        train_together(job_with(job, "second", epochs=1), here)
    assert other.ended() is None
    assert other.trainings == 2


def test_a_command_that_trains_nothing_ends_the_other_ranks(here: Runtime, elsewhere: Runtime, port: int) -> None:
    others = [Other(port, elsewhere, rank, 3) for rank in (1, 2)]
    with leading(port, here, 3) as one:
        assert one.hosts == dict.fromkeys((1, 2), socket.gethostname())
    assert [other.ended() for other in others] == [None, None]
    assert [other.trainings for other in others] == [0, 0]
    assert not [path for path in here.workspace.iterdir() if path.name != "datasets"]


def test_a_failure_of_rank_0_is_what_the_others_say(here: Runtime, elsewhere: Runtime, port: int) -> None:
    other = Other(port, elsewhere)
    with pytest.raises(ConfigError), leading(port, here):
        raise ConfigError("learn.lr: 7 is too much.")
    assert isinstance(other.ended(), TrainingError)
    assert "learn.lr: 7" in str(other.ended())


def test_rank_0_that_is_lost_is_said(here: Runtime, port: int) -> None:
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    base = PrefixStore(ranks.KEYS, store)
    other = Other(port, here)
    while not base.check(["come/1"]):
        time.sleep(0.01)
    base.set(f"session/{CAME.validate_json(base.get('come/1')).name}", "session")
    while not base.check(["session/sees/1"]):
        time.sleep(0.01)
    del base, store
    error = other.ended()
    assert isinstance(error, TrainingError)
    assert f"127.0.0.1:{port}" in str(error)


@contextmanager
def coming(port: int, runtime: Runtime, then: Callable[[Ranks], None]) -> Iterator[None]:
    """Rank 1 that comes, and then does something else."""

    def run() -> None:
        with met(Position(1, 2, "127.0.0.1", port), [CONFIG], runtime) as one:
            then(one)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(60)


def test_a_rank_that_is_lost_before_the_training_is_named(
    job: Job, here: Runtime, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "LOST", 0.5)
    with (
        coming(port, here, lambda one: None),
        pytest.raises(TrainingError, match=rf"rank 1 on {socket.gethostname()} was lost"),
        leading(port, here),
    ):
        train_together(job, here)


@pytest.mark.parametrize("content", ["pickle", "[]", '{"job": 3}', ""])
def test_what_another_put_in_the_place_of_a_training_is_not_run(
    content: str, here: Runtime, port: int, hostile: "Hostile"
) -> None:
    text = hostile.pickled() if content == "pickle" else content.encode()
    other = Other(port, here)
    with leading(port, here) as one:
        one.store.set("training/0/0", text.decode("latin-1"))
        one.store.set("training/0", "1")
        while not one.store.check(["failed/0/1"]):
            time.sleep(0.01)
        assert "no training of this version" in one.store.get("failed/0/1").decode()
    assert other.ended() is None
    assert not hostile.ran


@pytest.mark.parametrize("pixels", ["/etc/agepipe/pixels.npy", "datasets/../../elsewhere/pixels.npy", "pixels.npy"])
def test_a_training_leads_nobody_out_of_the_workspace(pixels: str, job: Job, here: Runtime, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=pixels):
        Shared(job, pixels, False).job_here(Seat(), tmp_path, here, None)


def test_a_workspace_without_the_pixels_is_named(job: Job, here: Runtime, tmp_path: Path) -> None:
    other = here.model_copy(update={"workspace": tmp_path / "empty"})
    with pytest.raises(TrainingError, match=f"{other.workspace} does not have datasets/faces-1/pixels.npy"):
        Shared(job, "datasets/faces-1/pixels.npy", False).job_here(Seat(), tmp_path, other, None)


def test_a_training_comes_as_it_was_given_but_for_what_each_rank_has_of_its_own(
    job: Job, here: Runtime, elsewhere: Runtime, tmp_path: Path
) -> None:
    job = job_with(job, weights="first.pt")
    given = FORM.validate_json(FORM.dump_json(Shared(job, "datasets/faces-0/pixels.npy", True)))
    assert same(given.job, job)
    seat = Seat(1, 2, 5, "node-1", "session")
    found = given.job_here(seat, tmp_path / "own", elsewhere, 3)
    assert found.pixels == elsewhere.workspace / "datasets/faces-0/pixels.npy"
    assert (found.seat, found.folder, found.gpu, found.learn.weights) == (seat, tmp_path / "own", 3, "none")


def test_a_long_training_is_sent_in_pieces(here: Runtime, port: int) -> None:
    text = "é" * (3 * ranks.PIECE // 2)
    other = Other(port, here)
    with leading(port, here) as one:
        one._send("long", text)
        assert one._received("long").decode() == text
    assert other.ended() is None


@pytest.mark.parametrize(
    ("change", "field", "values"),
    [
        ({"learn.lr": 0.5}, "learn.lr", ("0.5", "0.003")),
        ({"source.data": ("elsewhere/",)}, "source.data", ("elsewhere", "sample")),
    ],
)
def test_another_command_is_refused_on_all_ranks(
    change: dict[str, object], field: str, values: tuple[str, str], here: Runtime, port: int
) -> None:
    config, other_config = (presets.load("sample", {"search.grid": {}, **changes}) for changes in ({}, change))
    config = config.model_copy(update={"learn": config.learn.model_copy(update={"lr": 0.003})})
    if field != "learn.lr":
        other_config = other_config.model_copy(update={"learn": config.learn})
    other = Other(port, here, config=other_config)
    with pytest.raises(TrainingError, match=rf"{field}: .*{values[0]}.* rank 1 .*{values[1]}"):
        leading(port, here, config=config).__enter__()
    error = other.ended()
    assert isinstance(error, TrainingError)
    assert field in str(error)


def test_another_version_is_refused(here: Runtime, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter(("1.0", "2.15", "0.9", "2.15"))  # rank 0 asks first
    monkeypatch.setattr(ranks, "version", lambda name: next(versions))
    with pytest.raises(TrainingError, match=r"agepipe: 0\.9 on rank 1 .*1\.0"):
        with_late_other(port, here, here)


def with_late_other(port: int, runtime: Runtime, others: Runtime) -> None:
    thread = threading.Timer(0.3, lambda: Other(port, others))
    thread.start()
    with leading(port, runtime):
        pass


@pytest.mark.parametrize(
    ("change", "field"),
    [({"device": "cuda"}, "--device"), ({"bucket": "file:///elsewhere"}, "--workspace")],
)
def test_other_options_are_refused(change: dict[str, str], field: str, here: Runtime, port: int) -> None:
    other = Other(port, here.model_copy(update=change))
    with pytest.raises(TrainingError, match=f"{field}: .* on rank 1"):
        leading(port, here).__enter__()
    assert isinstance(other.ended(), TrainingError)


def test_a_workspace_that_is_another_folder_is_refused(here: Runtime, port: int, tmp_path: Path) -> None:
    other = Other(port, here.model_copy(update={"workspace": tmp_path / "own"}))
    with pytest.raises(TrainingError, match=rf"--workspace: {tmp_path}/own on rank 1 .*{here.workspace}"):
        leading(port, here).__enter__()
    assert isinstance(other.ended(), TrainingError)
    assert [path.name for path in here.workspace.iterdir()] == ["datasets"]


def test_ranks_that_do_not_come_are_named(here: Runtime, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "ARRIVAL", timedelta(seconds=1))
    with pytest.raises(TrainingError, match=f"2 of 3 ranks have not come to 127.0.0.1:{port} within 1 s, rank 1 first"):
        leading(port, here, 3).__enter__()


def test_rank_0_that_does_not_come_is_named(here: Runtime, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "ARRIVAL", timedelta(seconds=1))
    error = Other(port, here).ended()
    assert isinstance(error, TrainingError)
    assert f"127.0.0.1:{port}" in str(error)


def test_a_port_in_use_is_named(here: Runtime, port: int) -> None:
    with bound("", "127.0.0.1", port), pytest.raises(ServiceError, match=f"MASTER_PORT: port {port} is in use"):
        leading(port, here).__enter__()


def test_a_restart_in_the_store_of_torchrun_does_not_meet_what_is_left_of_the_last_one(
    here: Runtime, port: int
) -> None:
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)  # that of the agent
    left = Came(uuid.uuid4().hex, "dead", {"agepipe": "0"})
    PrefixStore(ranks.KEYS, store).set("come/1", CAME.dump_json(left).decode())
    for _ in range(2):
        with_late_other_hosted(port, here)


def with_late_other_hosted(port: int, runtime: Runtime) -> None:
    others: list[Other] = []
    threading.Timer(0.3, lambda: others.append(Other(port, runtime))).start()
    with met(Position(0, 2, "127.0.0.1", port, hosted=True), [CONFIG], runtime):
        pass
    assert others[0].ended() is None


def test_more_ranks_than_rows_and_a_number_of_processes_are_refused(here: Runtime) -> None:
    alone = here.model_copy(update={"processes": None})
    with pytest.raises(ConfigError, match=rf"learn\.batch: {CONFIG.learn.batch} rows for 500 ranks"):
        ranked(Position(1, 500, "node-1", 1), [CONFIG], alone)
    with pytest.raises(ConfigError, match=r"processes: 1, .* rank 1 of 2"):
        ranked(Position(1, 2, "node-1", 1), [CONFIG], here)
    assert ranked(Position(1, 4, "node-1", 1, 1, 2), [CONFIG], alone).processes == 2
