"""Several machines that share a training, here as processes that know nothing of each other but the workspace."""

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from agepipe.config.runtime import Runtime, meeting
from agepipe.core.errors import ConfigError, ServiceError, TrainingError
from agepipe.core.ports import bound
from agepipe.training import checkpoints, distributed, rendezvous
from agepipe.training.job import EpochEvent, Job, Seat
from agepipe.training.loop import BEST, CHECKPOINT
from agepipe.training.rendezvous import Invitation, invited, join, train_on_machines
from agepipe.training.workdir import train_in_processes
from agepipe.training.worker import isolated_group

if TYPE_CHECKING:  # a process that one of the tests starts sees only this file
    from hostile import Hostile

pytest.importorskip("lightning_fabric", reason="needs the extra distributed")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def meet() -> str:
    with bound("", "127.0.0.1", 0) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def job(job: Job, tmp_path: Path) -> Job:
    """As the pipeline has it: the pixels lie in the workspace as well."""
    return dataclasses.replace(job, pixels=Path(shutil.copy(job.pixels, tmp_path)))


@pytest.fixture
def first(job: Job, meet: str, tmp_path: Path) -> Runtime:
    """The machine that invites; the job lies in its workspace."""
    return Runtime(workspace=tmp_path, device="cpu", machines=2, meet=meet)


@pytest.fixture
def elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same workspace, as another machine has mounted it."""
    place = tmp_path_factory.mktemp("mounted") / "workspace"
    place.symlink_to(tmp_path)
    return place


@contextmanager
def joining(meet: str, workspace: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [Path(sys.executable).with_name("agepipe"), "join", meet, "--workspace", str(workspace)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def network(job: Job, name: str) -> dict[str, torch.Tensor]:
    found = checkpoints.load(job.folder / name)
    assert found is not None
    return found["network"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_two_machines_give_what_two_processes_of_one_give_bit_for_bit(
    job: Job, first: Runtime, meet: str, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = dataclasses.replace(job, folder=job.folder.with_name("alone"))
    expected = train_in_processes(alone, 2)
    epochs: list[EpochEvent] = []
    with joining(meet, elsewhere) as other:
        found = train_on_machines(job, first, epochs.append)
        said, _ = other.communicate(timeout=60)
    assert other.returncode == 0, said
    assert "epoch 3 of 3" in said
    assert "ended after 3 epochs" in said
    assert [event.epoch for event in epochs] == [1, 2, 3]
    assert f"waiting for 1 other machines: run `agepipe join {meet}`" in caplog.text
    assert (found.best, found.metrics) == (expected.best, expected.metrics)
    for name in (CHECKPOINT, BEST):
        assert all(torch.equal(value, network(alone, name)[key]) for key, value in network(job, name).items())
    assert not list((first.workspace / "machines").iterdir())


@pytest.mark.slow
def test_when_one_machine_is_killed_the_other_says_so_and_the_same_commands_go_on(
    job: Job, first: Runtime, meet: str, elsewhere: Path
) -> None:
    expected = train_in_processes(dataclasses.replace(job, folder=job.folder.with_name("alone")), 2)
    with joining(meet, elsewhere) as other:

        def kill(event: EpochEvent) -> None:
            if event.epoch == 1:
                other.send_signal(signal.SIGKILL)

        with pytest.raises(TrainingError, match=rf"the training at {meet} .*failed.*same commands again"):
            train_on_machines(job, first, kill)
    assert invited(meet, first) is None
    with joining(meet, elsewhere) as other:
        found = train_on_machines(job, first)
        assert other.wait(60) == 0
    assert found.metrics == expected.metrics


def invite_and_sleep(job: Job, runtime: Runtime) -> None:
    host, port = meeting(runtime.meet)
    with rendezvous._published(Invitation(job, runtime.workspace, Seat(0, 2, port, host, 2)), runtime.meet, runtime):
        sys.stdout.write("left\n")
        sys.stdout.flush()
        time.sleep(600)


@pytest.mark.slow
def test_an_invitation_whose_maker_was_killed_is_none(job: Job, first: Runtime, meet: str, tmp_path: Path) -> None:
    given = tmp_path / "given.pickle"
    given.write_bytes(pickle.dumps((job, first)))
    code = (
        f"import sys, pickle; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_rendezvous;"
        f"test_rendezvous.invite_and_sleep(*pickle.load(open({str(given)!r}, 'rb')))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "left\n"
        standing = invited(meet, first)
        assert standing is not None
        assert [one.seat for one in standing.jobs(1, tmp_path)] == [Seat(1, 2, meeting(meet)[1], "127.0.0.1", 2)]
        with pytest.raises(TrainingError, match="another training waits at"):
            train_on_machines(job, first)
        os.kill(maker.pid, signal.SIGKILL)
    assert invited(meet, first) is None
    assert (first.workspace / "machines" / meet.replace(":", "-")).exists(), "a killed one leaves its file"


def same(one: Job, other: Job) -> bool:
    columns = zip(
        (*vars(one.train).values(), *vars(one.validation).values()),
        (*vars(other.train).values(), *vars(other.validation).values()),
        strict=True,
    )
    plain = [dataclasses.replace(job, train=other.train, validation=other.validation) for job in (one, other)]
    return plain[0] == plain[1] and all(a.dtype == b.dtype and (a == b).all() for a, b in columns)


def test_an_invitation_comes_as_it_was_given(job: Job, first: Runtime, meet: str) -> None:
    given = Invitation(job, first.workspace, Seat(0, 4, 1, "127.0.0.1", 2))
    with rendezvous._published(given, meet, first):
        found = invited(meet, first)
    assert found is not None
    assert same(found.job, job)
    assert (found.workspace, found.first) == (given.workspace, given.first)


@pytest.mark.parametrize("content", ["pickle", "[]", '{"job": 3}', ""])
def test_what_another_put_in_the_place_of_an_invitation_is_not_run(
    content: str, job: Job, first: Runtime, meet: str, hostile: "Hostile"
) -> None:
    with rendezvous._published(Invitation(job, first.workspace, Seat(0, 2, 1, "127.0.0.1", 2)), meet, first):
        path = first.workspace / "machines" / meet.replace(":", "-")
        path.write_bytes(hostile.pickled() if content == "pickle" else content.encode())
        with pytest.raises(TrainingError, match=str(path)):
            join(meet, first)
    assert not hostile.ran


@pytest.mark.parametrize("field", ["folder", "pixels"])
def test_an_invitation_leads_nobody_out_of_the_workspace(field: str, job: Job, first: Runtime, meet: str) -> None:
    for outside in (Path("/etc/agepipe"), first.workspace / ".." / "elsewhere"):
        leading = dataclasses.replace(job, **{field: outside})
        with (
            rendezvous._published(Invitation(leading, first.workspace, Seat(0, 2, 1, "127.0.0.1", 2)), meet, first),
            pytest.raises(TrainingError, match=str(outside)),
        ):
            join(meet, first)


def test_each_machine_takes_a_place_of_its_own_and_one_too_many_is_refused(
    job: Job, first: Runtime, meet: str, tmp_path: Path
) -> None:
    invitation = Invitation(job, tmp_path, Seat(0, 6, 1, "127.0.0.1", 3))
    with rendezvous._published(invitation, meet, first):
        with rendezvous._slot(invitation, meet, first) as one, rendezvous._slot(invitation, meet, first) as two:
            assert [seen.seat.rank for seen in invitation.jobs(one, tmp_path)] == [2, 3]
            assert [seen.seat.rank for seen in invitation.jobs(two, tmp_path)] == [4, 5]
            with pytest.raises(TrainingError, match=f"places at {meet} are taken.*3 machines"):
                join(meet, first)
        with rendezvous._slot(invitation, meet, first) as again:
            assert again == 1


def impatient(job: Job) -> None:
    """What a process of the next test runs."""
    distributed.TIMEOUT = timedelta(seconds=3)
    distributed.Processes(job.seat, torch.device("cpu"))


def test_machines_that_do_not_come_are_named_in_one_sentence(job: Job, meet: str) -> None:
    host, port = meeting(meet)
    alone = dataclasses.replace(job, seat=Seat(0, 2, port, host, 2))
    who = rf"not all 2 processes on 2 machines met at {meet} within 3 s; run .* `agepipe join {meet}` on the others"
    with pytest.raises(TrainingError, match=who):
        isolated_group(impatient, [(alone,)])


def test_a_port_in_use_is_refused_before_anyone_is_invited(job: Job, first: Runtime, meet: str) -> None:
    host, port = meeting(meet)
    with bound("", host, port), pytest.raises(ServiceError, match=f"--meet: port {port} is in use"):
        train_on_machines(job, first)
    assert invited(meet, first) is None


def test_who_waits_is_served_by_an_invitation_that_comes_later(
    job: Job, first: Runtime, meet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "PAUSE", 0.05)
    monkeypatch.setattr(rendezvous, "isolated_group", lambda function, places, on_event: places)
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(join(meet, first)))
    waiting.start()
    time.sleep(0.3)
    assert not found
    with rendezvous._published(Invitation(job, first.workspace, Seat(0, 2, 1, "127.0.0.1", 2)), meet, first):
        waiting.join(30)
    ((place,),) = found[0]  # type: ignore[misc]
    assert place.seat.rank == 1


def test_who_waits_in_vain_is_told_when_the_time_is_over(first: Runtime, meet: str) -> None:
    with pytest.raises(TrainingError, match=f"no training has begun at {meet} within 0.2 s; .*{first.workspace}"):
        join(meet, first, wait=0.2)


def test_an_address_has_a_host_and_a_port() -> None:
    assert meeting("node-1.cluster:29500") == ("node-1.cluster", 29500)
    with pytest.raises(ConfigError):
        meeting("node 1:29500")
