import dataclasses
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from agepipe.config import AugmentSettings
from agepipe.errors import DivergedError, ModelError, TrainingError, WorkerError
from agepipe.learn import checkpoint
from agepipe.learn.fit import BEST, CHECKPOINT, Training, network_of
from agepipe.learn.job import EpochEvent, Fitted, Job
from agepipe.learn.process import isolated
from agepipe.learn.runs import fitting

FULL = AugmentSettings(
    rotate=5, scale=0.1, brightness=0.2, contrast=0.2, grey=0.2, erase=0.3, blur=0.3, jpeg=0.3, mix=0.4
)


def _with(job: Job, folder: str = "training", **changes: object) -> Job:
    learn = job.learn.model_copy(update=changes)
    return dataclasses.replace(job, learn=learn, folder=job.folder.with_name(folder))


def _weights(job: Job, file: str = BEST) -> dict[str, torch.Tensor]:
    found = checkpoint.load(job.folder / file)
    assert found is not None
    return found["network"]


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _no_time(fitted: Fitted) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.curves]


def test_a_training_learns_and_says_how_it_goes(job: Job) -> None:
    job = _with(job, epochs=8, average=0.5)
    events: list[EpochEvent] = []
    fitted = isolated(fitting, job, on_event=events.append)
    assert [event.epoch for event in events] == list(range(1, 9))
    assert {event.epochs for event in events} == {8}
    for part in ("train", "validation"):
        for name in ("loss", "accuracy", "macro_precision", "macro_recall", "mae"):
            assert all(np.isfinite(event.metrics[f"{part}_{name}"]) for event in events)
    assert fitted.metrics["macro_recall"] == max(row["validation_macro_recall"] for row in fitted.curves)
    assert fitted.metrics["macro_recall"] > 0.5
    assert fitted.curves[fitted.best - 1]["validation_macro_recall"] == fitted.metrics["macro_recall"]
    assert fitted.parameters > 300_000


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(job: Job, optimizer: str) -> None:
    changes = {"epochs": 4, "average": 0.9, "dropout": 0.3, "helpers": 0.3, "augment": FULL, "optimizer": optimizer}
    whole, broken = _with(job, "whole", **changes), _with(job, "broken", **changes)
    expected = isolated(fitting, whole)

    def kill(event: EpochEvent) -> None:
        if event.epoch == 2:
            time.sleep(0.1)  # well inside the third epoch
            (child,) = multiprocessing.active_children()
            os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(WorkerError, match="SIGKILL"):
        isolated(fitting, broken, on_event=kill)
    assert len(checkpoint.load(broken.folder / CHECKPOINT)["curves"]) < 4  # type: ignore[index]
    after: list[EpochEvent] = []
    found = isolated(fitting, broken, on_event=after.append)
    assert after[0].epoch >= 3
    assert _no_time(found) == _no_time(expected)
    assert _same(_weights(broken), _weights(whole))
    assert _same(_weights(broken, CHECKPOINT), _weights(whole, CHECKPOINT))


def test_one_cut_off_between_its_two_files_keeps_the_weights_of_the_epoch_that_it_reports(job: Job) -> None:
    job = dataclasses.replace(_with(job, epochs=9, average=0.8), metric="loss")
    training = Training(job)
    training.epoch()
    before = (job.folder / BEST).read_bytes()
    while training.best == 1:
        training.epoch()
    wanted = checkpoint.load(job.folder / BEST) or {}
    (job.folder / BEST).write_bytes(before)  # as if the process had died before it wrote the second
    again = Training(job)
    found = checkpoint.load(job.folder / BEST) or {}
    assert again.best == found["epoch"] == wanted["epoch"] > 1
    assert _same(found["network"], wanted["network"])
    assert torch.equal(found["probabilities"], wanted["probabilities"])
    assert torch.equal(again._kept, wanted["probabilities"])
    again.curves.append(again.curves[-1])
    again._save(again._state(), CHECKPOINT)
    (job.folder / BEST).unlink()
    with pytest.raises(
        ModelError, match=rf"the weights of epoch {again.best}, the best so far; delete {job.folder} to"
    ):
        Training(job)


def test_every_training_starts_from_weights_that_depend_on_the_seed_alone(job: Job) -> None:
    """Law 4: whatever the fold, the learning rate and what was trained before, the first weights are the same."""
    first = Training(_with(job, "first"))
    start = {name: value.clone() for name, value in first.network.body.state_dict().items()}
    first.epoch()
    assert not _same(start, first.network.body.state_dict())
    other_fold = dataclasses.replace(job, train=job.validation, validation=job.train)
    second = Training(_with(other_fold, "second", lr=0.5, batch=8))
    assert _same(start, second.network.body.state_dict())
    assert not _same(start, Training(_with(job, "third", seed=2)).network.body.state_dict())


def test_a_network_carried_from_fold_to_fold_would_be_seen(job: Job) -> None:
    """The notebook's fault: the second fold began with the weights that the first had ended with."""
    second = dataclasses.replace(job, train=job.validation, validation=job.train, folder=job.folder / "2")
    alone = isolated(fitting, second)
    isolated(fitting, _with(job, "1"))
    after_another = isolated(fitting, dataclasses.replace(second, folder=job.folder / "3"))
    assert _no_time(after_another) == _no_time(alone)


def test_training_stops_when_patience_runs_out_and_stays_stopped(job: Job) -> None:
    job = dataclasses.replace(_with(job, epochs=30, lr=1e-9), patience=2, metric="accuracy")
    events: list[EpochEvent] = []
    fitted = isolated(fitting, job, on_event=events.append)
    assert len(fitted.curves) == fitted.best + 2 < 30
    assert [event.early for event in events] == [False] * (len(events) - 1) + [True]
    assert _no_time(isolated(fitting, job)) == _no_time(fitted)


def test_for_errors_lower_is_better(job: Job) -> None:
    fitted = isolated(fitting, dataclasses.replace(_with(job, epochs=4), metric="mae"))
    assert fitted.metrics["mae"] == min(row["validation_mae"] for row in fitted.curves)


def test_the_kept_network_gives_the_figures_of_the_best_epoch(job: Job) -> None:
    job = _with(job, epochs=4, average=0.8)
    fitted = isolated(fitting, job)
    network = network_of(job, fitted, job.folder / BEST)
    pictures = np.load(job.pixels)[job.validation.index]
    with torch.inference_mode():
        _, years = network(torch.from_numpy(pictures))
    mae = np.abs(years.numpy() - job.validation.ages).mean()
    assert mae == pytest.approx(fitted.metrics["mae"], abs=1e-4)


def test_a_learning_rate_that_explodes_is_named(job: Job) -> None:
    explosive = {"lr": 10.0, "optimizer": "sgd", "momentum": 0.99, "years_loss": 10.0, "l1": 10.0}
    with pytest.raises(DivergedError, match=r"learn\.lr: with 10\.0 the loss is (nan|inf)"):
        isolated(fitting, _with(job, epochs=20, **explosive))


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(job: Job) -> None:
    isolated(fitting, _with(job, epochs=1, schedule="constant"))
    path = job.folder / CHECKPOINT
    saved = checkpoint.load(path)
    assert saved is not None
    saved["network"]["body.conv1.0.weight"].fill_(float("nan"))
    checkpoint.save(saved, path)
    kept = path.read_bytes()
    with pytest.raises(TrainingError, match="the loss is nan in epoch 2"):
        isolated(fitting, _with(job, epochs=2, schedule="constant"))
    assert path.read_bytes() == kept


def _fit_with_little_memory(job: Job) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, used + 60_000_000))
    fitting(job)


def test_too_little_memory_names_the_batch(job: Job) -> None:
    with pytest.raises(TrainingError, match=r"learn\.batch: no memory for 120 pictures of 32 px"):
        isolated(_fit_with_little_memory, _with(job, batch=120, network="resnet18"))


def test_a_gpu_that_is_not_there_is_named(job: Job) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="finds no GPU"):
        isolated(fitting, dataclasses.replace(job, device="cuda"))
