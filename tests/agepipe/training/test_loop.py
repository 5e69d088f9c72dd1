import copy
import dataclasses
import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from trainings import first_rows, job_with, kill_after, state, weights, without_seconds

from agepipe.config.stages import AugmentSettings
from agepipe.core.errors import DivergedError, ModelError, TrainingError, WorkerError
from agepipe.model.decoding import decide
from agepipe.training import checkpoints
from agepipe.training.augment import augment, mix
from agepipe.training.batches import Batch
from agepipe.training.job import EpochEvent, Job
from agepipe.training.loop import BEST, CHECKPOINT, Training, network_of
from agepipe.training.workdir import fitting
from agepipe.training.worker import isolated

FULL = AugmentSettings(
    rotate=5, scale=0.1, brightness=0.2, contrast=0.2, grey=0.2, erase=0.3, blur=0.3, jpeg=0.3, mix=0.4
)


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_learns_and_says_how_it_goes(job: Job) -> None:
    job = job_with(job, epochs=8, average=0.5)
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
    whole, broken = job_with(job, "whole", **changes), job_with(job, "broken", **changes)
    expected = isolated(fitting, whole)

    with pytest.raises(WorkerError, match="SIGKILL"):
        isolated(fitting, broken, on_event=kill_after(2, 0.1))  # well inside the third epoch
    assert len(state(broken)["curves"]) < 4
    after: list[EpochEvent] = []
    found = isolated(fitting, broken, on_event=after.append)
    assert after[0].epoch >= 3
    assert without_seconds(found) == without_seconds(expected)
    assert _same(weights(broken), weights(whole))
    assert _same(weights(broken, CHECKPOINT), weights(whole, CHECKPOINT))


def test_one_cut_off_between_its_two_files_keeps_the_weights_of_the_epoch_that_it_reports(job: Job) -> None:
    job = dataclasses.replace(job_with(job, epochs=9, average=0.8), metric="loss")
    training = Training(job)
    training.epoch()
    before = (job.folder / BEST).read_bytes()
    while training.best == 1:
        training.epoch()
    wanted = checkpoints.load(job.folder / BEST) or {}
    (job.folder / BEST).write_bytes(before)  # as if the process had died before it wrote the second
    again = Training(job)
    found = checkpoints.load(job.folder / BEST) or {}
    assert again.best == found["epoch"] == wanted["epoch"] > 1
    assert _same(found["network"], wanted["network"])
    assert torch.equal(found["probabilities"], wanted["probabilities"])
    assert torch.equal(again._best_probabilities, wanted["probabilities"])
    again.curves.append(again.curves[-1])
    again._save(again._state(), CHECKPOINT)
    (job.folder / BEST).unlink()
    with pytest.raises(
        ModelError, match=rf"the weights of epoch {again.best}, the best so far; delete {job.folder} to"
    ):
        Training(job)


def test_every_training_starts_from_weights_that_depend_on_the_seed_alone(job: Job) -> None:
    """Law 4: whatever the fold, the learning rate and what was trained before, the first weights are the same."""
    first = Training(job_with(job, "first"))
    start = {name: value.clone() for name, value in first.network.body.state_dict().items()}
    first.epoch()
    assert not _same(start, first.network.body.state_dict())
    other_fold = dataclasses.replace(job, train=job.validation, validation=job.train)
    second = Training(job_with(other_fold, "second", lr=0.5, batch=8))
    assert _same(start, second.network.body.state_dict())
    assert not _same(start, Training(job_with(job, "third", seed=2)).network.body.state_dict())


def test_a_network_carried_from_fold_to_fold_would_be_seen(job: Job) -> None:
    """The notebook's fault: the second fold began with the weights that the first had ended with."""
    second = dataclasses.replace(job, train=job.validation, validation=job.train, folder=job.folder / "2")
    alone = isolated(fitting, second)
    isolated(fitting, job_with(job, "1"))
    after_another = isolated(fitting, dataclasses.replace(second, folder=job.folder / "3"))
    assert without_seconds(after_another) == without_seconds(alone)


def _few(job: Job, folder: str, **changes: object) -> Job:
    """A training of three steps an epoch."""
    return first_rows(job_with(job, folder, **changes), 48)


def _trained(job: Job) -> Training:
    training = Training(job)
    while not training.finished:
        training.epoch()
    return training


def test_rows_that_are_not_for_learning_move_no_weight(job: Job, tmp_path: Path) -> None:
    """Law 2: neither the validation rows nor the stored pictures of other rows, such as the test rows, have a part."""
    changes = {"epochs": 2, "class_weights": True, "helpers": 0.3, "average": 0.5}
    first = _few(job, "first", **changes)
    pixels = np.load(job.pixels)
    others = np.setdiff1d(np.arange(len(pixels)), first.train.index)
    assert len(others) > len(job.validation)
    pixels[others] = 255 - pixels[others] // 3
    np.save(tmp_path / "other.npy", pixels)
    flags = {name: np.zeros_like(getattr(job.validation, name)) for name in ("ages", "labels", "genders", "races")}
    second = dataclasses.replace(
        _few(job, "second", **changes), pixels=tmp_path / "other.npy",
        validation=dataclasses.replace(job.validation, **flags),
    )  # fmt: skip
    one, two = _trained(first), _trained(second)
    assert (one.mean, one.std) == (two.mean, two.std)
    assert _same(one.network.state_dict(), two.network.state_dict())
    assert _same(one.average.network.state_dict(), two.average.network.state_dict())  # type: ignore[union-attr]
    for row, other in zip(one.curves, two.curves, strict=True):
        assert all(row[name] == other[name] for name in row if name.startswith("train_"))
        assert row["validation_mae"] != other["validation_mae"]


def test_a_mixed_batch_counts_both_answers_by_their_shares(job: Job) -> None:
    settings = AugmentSettings(mix=2.0)
    changes = {"dropout": 0.0, "helpers": 0.4, "class_weights": True, "years_loss": 0.5, "augment": settings}
    training = Training(job_with(job, "mixed", **changes))
    network = copy.deepcopy(training.network).train()
    torch.manual_seed(11)
    batch = next(training.train.shuffled())
    before = torch.get_rng_state()
    training.network.train()
    loss, _ = training._step(batch, slice(None))

    torch.set_rng_state(before)
    mixed = mix(augment(batch.images, 32, settings), batch.ages, settings.mix)
    assert abs(mixed.share - 0.5) > 0.1  # else the wrong share would hardly show
    logits = network.all_logits(mixed.levels)
    outputs = network.readout.outputs

    def answered(rows: Batch) -> Tensor:
        main = training.objective(network, logits[:, :outputs], rows.labels, rows.ages)
        return main + training.objective.helper_loss(logits[:, outputs:], rows.genders, rows.races)  # type: ignore[no-any-return]

    partners = Batch(batch.images, *(column[mixed.partner] for column in batch[1:]))
    assert (partners.labels != batch.labels).any()
    expected = mixed.share * answered(batch) + (1 - mixed.share) * answered(partners)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    for (name, mine), given in zip(network.named_parameters(), training.network.parameters(), strict=True):
        assert torch.allclose(mine.grad, given.grad, rtol=1e-3, atol=1e-5), name  # type: ignore[arg-type]


def _rates(schedule: str, steps: int) -> list[float]:
    """The learning rate of each step, as a share of the largest."""
    if schedule == "cosine":
        return [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    top, last = 0.3 * steps - 1, steps - 1
    rise = [1 + (1 / 25 - 1) * (1 + math.cos(math.pi * step / top)) / 2 for step in range(steps) if step <= top]
    fall = [(1 + math.cos(math.pi * (step - top) / (last - top))) / 2 for step in range(len(rise), steps)]
    return [*rise, *(1e-4 / 25 + (1 - 1e-4 / 25) * share for share in fall)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_the_learning_rate_goes_through_its_whole_schedule_a_step_at_a_time(job: Job, schedule: str) -> None:
    training = Training(_few(job, schedule, epochs=4, schedule=schedule))
    rates: list[float] = []
    training.optimizer.register_step_pre_hook(lambda moved, *_: rates.append(moved.param_groups[0]["lr"]))
    while not training.finished:
        training.epoch()
    expected = [1.0] * 12 if schedule == "constant" else _rates(schedule, 12)
    assert torch.are_deterministic_algorithms_enabled()  # on a CPU, so that a training can be repeated bit for bit
    assert rates == pytest.approx([training.learn.lr * share for share in expected], rel=1e-6)


def test_the_average_takes_in_every_step_by_the_decay_that_was_asked(job: Job) -> None:
    training = Training(_few(job, "average", epochs=1, average=0.2))
    weight = next(training.network.parameters())
    expected = weight.detach().double().clone()
    steps: list[int] = []

    def follow(*_: object) -> None:
        steps.append(1)
        decay = min(0.2, (1 + len(steps)) / (10 + len(steps)))
        expected.mul_(decay).add_(weight.detach().double(), alpha=1 - decay)

    training.optimizer.register_step_post_hook(follow)
    training.epoch()
    assert len(steps) == 3
    assert torch.allclose(next(training.evaluated_network.parameters()).double(), expected, atol=1e-6)
    assert not torch.allclose(weight.double(), expected, atol=1e-4)


def test_training_stops_when_patience_runs_out_and_stays_stopped(job: Job) -> None:
    job = dataclasses.replace(job_with(job, epochs=30, lr=1e-9), patience=2, metric="accuracy")
    events: list[EpochEvent] = []
    fitted = isolated(fitting, job, on_event=events.append)
    assert len(fitted.curves) == fitted.best + 2 < 30
    assert [event.early for event in events] == [False] * (len(events) - 1) + [True]
    assert without_seconds(isolated(fitting, job)) == without_seconds(fitted)


def test_for_errors_lower_is_better(job: Job) -> None:
    fitted = isolated(fitting, dataclasses.replace(job_with(job, epochs=4), metric="mae"))
    assert fitted.metrics["mae"] == min(row["validation_mae"] for row in fitted.curves)


def test_the_kept_network_gives_the_figures_of_the_best_epoch(job: Job) -> None:
    job = job_with(job, epochs=4, average=0.8)
    fitted = isolated(fitting, job)
    network = network_of(job, fitted, job.folder / BEST)
    pictures = np.load(job.pixels)[job.validation.index]
    with torch.inference_mode():
        probabilities, years = (found.numpy() for found in network(torch.from_numpy(pictures)))
    shown = job.ranges.within(decide(probabilities, job.learn.decoding), years)
    assert np.abs(shown - years).mean() > 0.01  # else ages outside the answered ranges would hardly show
    mae = np.abs(shown - job.validation.ages).mean()
    assert mae == pytest.approx(fitted.metrics["mae"], abs=1e-4)


def test_a_learning_rate_that_explodes_is_named(job: Job) -> None:
    explosive = {"lr": 10.0, "optimizer": "sgd", "momentum": 0.99, "years_loss": 10.0, "l1": 10.0}
    with pytest.raises(DivergedError, match=r"learn\.lr: with 10\.0 the loss is (nan|inf)"):
        isolated(fitting, job_with(job, epochs=20, **explosive))


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(job: Job) -> None:
    isolated(fitting, job_with(job, epochs=1, schedule="constant"))
    path = job.folder / CHECKPOINT
    saved = checkpoints.load(path)
    assert saved is not None
    saved["network"]["body.conv1.0.weight"].fill_(float("nan"))
    checkpoints.save(saved, path)
    kept = path.read_bytes()
    with pytest.raises(TrainingError, match="the loss is nan in epoch 2"):
        isolated(fitting, job_with(job, epochs=2, schedule="constant"))
    assert path.read_bytes() == kept


def _fit_with_little_memory(job: Job) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, used + 60_000_000))
    fitting(job)


def test_too_little_memory_names_the_batch(job: Job) -> None:
    with pytest.raises(TrainingError, match=r"learn\.batch: no memory for 120 pictures of 32 px"):
        isolated(_fit_with_little_memory, job_with(job, batch=120, network="resnet18"))


def test_a_gpu_that_is_not_there_is_named(job: Job) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="finds no GPU"):
        isolated(fitting, dataclasses.replace(job, device="cuda"))
