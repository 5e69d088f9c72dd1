import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from trainings import job_with, state, without_seconds

from agepipe.config.stages import AugmentSettings, LearnSettings
from agepipe.core.errors import DivergedError, TrainingError, WorkerError
from agepipe.core.ports import bound
from agepipe.model.ages import AgeRanges
from agepipe.training import checkpoints, loop
from agepipe.training.job import EpochEvent, Examples, Fitted, Job, Seat
from agepipe.training.loop import BEST, CHECKPOINT, Training
from agepipe.training.network import GENDERS, RACES, AgeNetwork, Normalise, Readout
from agepipe.training.workdir import process_jobs, train_in_processes
from agepipe.training.worker import isolated_group

pytest.importorskip("lightning_fabric", reason="needs the extra distributed")

pytestmark = pytest.mark.timeout(600)  # each training with two processes imports Fabric in both

MIXED = AugmentSettings(
    rotate=5, scale=0.1, brightness=0.2, contrast=0.2, grey=0.2, erase=0.3, blur=0.3, jpeg=0.3, mix=0.4
)
PLAIN = {"dropout": 0.0, "optimizer": "sgd", "lr": 0.02, "epochs": 2}
"""With `plainly`: neither batch norm nor dropout, the two that depend on the number of processes on a CPU."""
EVERYTHING = {
    **PLAIN, "helpers": 0.5, "class_weights": True, "l1": 1e-3, "average": 0.9, "years_loss": 0.2, "augment": MIXED,
}  # fmt: skip


def plainly(job: Job, on_event: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """What a process runs: the real loop, with a small network whose answer to a picture depends on that one alone.

    Every network of torchvision's that is small enough for a test has batch norm or draws of its own.
    """
    loop.build = _small  # type: ignore[attr-defined]
    loop.precision = lambda *_: "float32"  # in bfloat16 the halves of a batch would differ by more than the tolerance
    return loop.fit(job, on_event)


def _small(learn: LearnSettings, ranges: AgeRanges, mean: Sequence[float], std: Sequence[float]) -> AgeNetwork:
    readout = Readout(ranges, by_year=learn.target == "years")
    helpers = GENDERS + RACES if learn.helpers > 0 else 0
    body = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 32, 5, 2), nn.GroupNorm(4, 32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, readout.outputs + helpers),
    )  # fmt: skip
    return AgeNetwork(body, Normalise(mean, std), readout, learn.size, learn.mirror)


def plain(job: Job, processes: int) -> Fitted:
    return isolated_group(plainly, [(one,) for one in process_jobs(job, processes)])


def _with(job: Job, folder: str, **changes: object) -> Job:
    return dataclasses.replace(job_with(job, folder, **changes), metric="loss")


def _uneven(job: Job) -> Job:
    """Half of the genders are known, and none of them in some parts; no race is."""
    train = dataclasses.replace(
        job.train,
        genders=np.where(np.arange(len(job.train)) % 7 < 2, np.arange(len(job.train)) % 2, -1),
        races=np.full(len(job.train), -1),
    )
    return dataclasses.replace(job, train=train)


def _close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], rtol=1e-3, atol=2e-5, msg=lambda why, at=name: f"{at}: {why}"
        )


def _curves(fitted: Fitted) -> np.ndarray[Any, Any]:
    return np.array([[value for name, value in row.items() if name != "seconds"] for row in fitted.curves])


@pytest.mark.parametrize("augment", [MIXED, MIXED.model_copy(update={"mix": 0.0})])
def test_two_processes_give_what_one_gives(augment: AugmentSettings, job: Job) -> None:
    """Helpers with few labels, class weights, L1, partners across parts, uneven parts, the average, the curves."""
    job, changes = _uneven(job), {**EVERYTHING, "batch": 15, "augment": augment}
    one, several = _with(job, "one", **changes), _with(job, "several", **changes)
    expected, found = plain(one, 1), plain(several, 2)
    np.testing.assert_allclose(_curves(found), _curves(expected), rtol=2e-3, atol=1e-5)
    assert found.best == expected.best
    assert found.probabilities is not None
    assert expected.probabilities is not None
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-3, atol=1e-5)
    for part in ("network", "average"):
        _close(state(several)[part], state(one)[part])
    _close(state(several, BEST)["network"], state(one, BEST)["network"])
    assert torch.equal(state(several)["random"]["cpu"], state(one)["random"]["cpu"])


def test_the_training_moved_by_far_more_than_it_differs(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tolerance of the test above is worth."""
    monkeypatch.setattr(loop, "build", _small)
    training = Training(_with(_uneven(job), "moved", **EVERYTHING))
    before = {name: value.detach().clone() for name, value in training.network.named_parameters()}
    training.epoch()
    moved = [float((value.detach() - before[name]).abs().max()) for name, value in training.network.named_parameters()]
    assert np.median(moved) > 5e-4


def test_fewer_validation_rows_than_processes_are_judged_once(job: Job) -> None:
    only = Examples(*(getattr(job.validation, field.name)[:1] for field in dataclasses.fields(Examples)))
    job = dataclasses.replace(job, validation=only)
    one, several = _with(job, "one", **PLAIN), _with(job, "several", **PLAIN)
    expected, found = plain(one, 1), plain(several, 2)
    assert found.probabilities is not None
    assert found.probabilities.shape == (1, len(job.ranges))
    np.testing.assert_allclose(_curves(found), _curves(expected), rtol=2e-3, atol=1e-5)


def weights_of_each(job: Job) -> None:
    """What a process of the next test runs: one epoch, and its own state into a file."""
    training = Training(job)
    training.epoch()
    kept = {"network": training.network.state_dict(), "average": training.average.network.state_dict()}  # type: ignore[union-attr]
    random = {"random": torch.get_rng_state(), "momentum": training.optimizer.state_dict()["state"]}
    checkpoints.save({**kept, **random}, job.folder / f"rank-{job.seat.rank}.pt")
    torch.distributed.barrier()  # the others are killed when the first ends


@pytest.mark.slow
def test_with_batch_norm_and_dropout_all_processes_have_the_same_network_bit_for_bit(job: Job) -> None:
    job = _with(job, "norm", batch=39, average=0.9, dropout=0.5, augment=MIXED)
    with bound("", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    isolated_group(weights_of_each, [(dataclasses.replace(job, seat=Seat(rank, 2, port)),) for rank in range(2)])
    first, second = (state(job, f"rank-{rank}.pt") for rank in range(2))
    assert any(name.endswith("running_var") for name in first["network"])
    for part in ("network", "average"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
    assert torch.equal(first["random"], second["random"])
    saved = state(job)["network"]
    assert saved.keys() == first["network"].keys()
    assert all(torch.equal(saved[name], value) for name, value in first["network"].items())


@pytest.mark.slow
def test_killed_and_resumed_is_what_was_never_killed(job: Job) -> None:
    changes = {"epochs": 3, "batch": 40, "average": 0.9, "dropout": 0.3, "augment": MIXED}
    whole, broken = _with(job, "whole", **changes), _with(job, "broken", **changes)
    expected = train_in_processes(whole, 2)
    killed: list[int] = []

    def kill(event: EpochEvent) -> None:
        if event.epoch == 1:
            killed.extend(child.pid or 0 for child in multiprocessing.active_children())
            os.kill(killed[-1], signal.SIGKILL)

    with pytest.raises(
        WorkerError, match=r"one of the 2 processes of this work ended without a result \(killed by SIGKILL"
    ):
        train_in_processes(broken, 2, kill)
    assert len(killed) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in killed)
    found = train_in_processes(broken, 2)
    assert without_seconds(found) == without_seconds(expected)
    one, two = state(whole), state(broken)
    for part in ("network", "average"):
        assert all(torch.equal(value, one[part][name]) for name, value in two[part].items())


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_processes(job: Job, before: int, after: int) -> None:
    one, changing = _with(job, "one", **EVERYTHING), _with(job, "changing", **EVERYTHING)
    expected = plain(one, 1)
    plain(dataclasses.replace(changing, until=1), before)
    found = plain(changing, after)
    np.testing.assert_allclose(_curves(found), _curves(expected), rtol=2e-3, atol=1e-5)
    _close(state(changing)["network"], state(one)["network"])


def test_what_one_process_finds_wrong_ends_all_with_its_sentence(job: Job) -> None:
    explosive = {"lr": 10.0, "momentum": 0.99, "years_loss": 10.0, "l1": 10.0, "epochs": 20}
    with pytest.raises(DivergedError, match=r"learn\.lr: with 10\.0 the loss is (nan|inf)"):
        train_in_processes(_with(job, "explosive", **{**PLAIN, **explosive}), 2)
    assert not multiprocessing.active_children()


def test_a_disk_that_fails_the_first_ends_all(job: Job) -> None:
    job = _with(job, "full", **PLAIN)
    (job.folder / (CHECKPOINT + ".tmp")).mkdir(parents=True)
    with pytest.raises(TrainingError, match="could not be written"):
        train_in_processes(job, 2)
    assert not multiprocessing.active_children()


def test_one_process_has_no_part_in_it(job: Job) -> None:
    processes = Training(_with(job, "alone")).processes
    assert processes.fabric is None
    assert processes.shard(7) == slice(0, 7)
    assert processes.loss_weight(7) == 1.0
