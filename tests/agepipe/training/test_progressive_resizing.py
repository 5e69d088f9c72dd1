"""Growing sizes: which epoch has which, that a small picture shows what a large one does, and what a kill does."""

import dataclasses
from pathlib import Path

import polars as pl
import pytest
import torch
from folders import tried
from torch import Tensor
from torch.nn import functional
from trainings import job_with, kill_after, weights

from agepipe.config.runtime import Runtime
from agepipe.config.stages import AugmentSettings, LearnSettings
from agepipe.core.errors import WorkerError
from agepipe.data.records import Rows
from agepipe.search.records import Fold
from agepipe.training.augment import augment
from agepipe.training.job import Job
from agepipe.training.loop import BEST, CHECKPOINT, Training, network_of
from agepipe.training.network import centre
from agepipe.training.progressive_resizing import epochs_below, shrunk, side_of
from agepipe.training.workdir import fitting
from agepipe.training.worker import isolated

GROWING = {"size": 36, "sizes": (32, 36)}


def _sides(epochs: int, *sizes: int) -> list[int]:
    learn = LearnSettings(size=96, sizes=sizes, epochs=epochs)
    return [side_of(learn, epoch) for epoch in range(1, epochs + 1)]


def test_sizes_share_the_epochs_evenly_and_the_larger_ones_get_what_is_left() -> None:
    assert _sides(4) == [96] * 4
    assert _sides(6, 64, 80, 96) == [64, 64, 80, 80, 96, 96]
    assert _sides(8, 64, 80, 96) == [64] * 2 + [80] * 3 + [96] * 3
    assert _sides(5, 64, 96) == [64] * 2 + [96] * 3
    assert _sides(3, 64, 80, 96) == [64, 80, 96]
    assert epochs_below(LearnSettings(size=96, sizes=(64, 96), epochs=5)) == 2
    assert epochs_below(LearnSettings(size=96, epochs=5)) == 0


def _pictures(stored: int = 108) -> Tensor:
    torch.manual_seed(1)
    smooth = functional.interpolate(torch.rand(6, 3, 8, 8), stored, mode="bicubic")
    return (smooth.clamp(0, 1) * 255).permute(0, 2, 3, 1).byte()


def _resized(images: Tensor, side: int) -> Tensor:
    planes = functional.interpolate(images.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True)
    return planes.permute(0, 2, 3, 1)


def test_a_small_picture_shows_the_same_field_of_view() -> None:
    small = centre(shrunk(_pictures(), 96, 64), 64).float()
    assert small.shape == (6, 64, 64, 3)
    whole, tighter = _resized(centre(_pictures(), 96), 64), centre(_pictures(), 64).float()
    assert (small - whole).abs().mean() < 1
    assert (small - tighter).abs().mean() > 10


@pytest.mark.parametrize("settings", [AugmentSettings(), AugmentSettings(rotate=10, scale=0.1, flip=1.0)])
def test_the_same_draws_change_a_small_picture_as_they_change_a_large_one(settings: AugmentSettings) -> None:
    settings = settings.model_copy(update={"shift": settings.rotate > 0})
    torch.manual_seed(3)
    large = augment(_pictures(), 96, settings)
    torch.manual_seed(3)
    small = augment(shrunk(_pictures(), 96, 64), 64, settings)
    assert (small - _resized(large, 64)).abs().mean() < 2


def test_at_full_size_nothing_is_touched() -> None:
    images = _pictures()
    assert shrunk(images, 96, 96) is images


def test_fine_detail_is_averaged_not_skipped() -> None:
    stripes = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    small = shrunk(stripes, 96, 48).float()
    assert small.dtype == torch.float32
    assert (small[:, :, 2:-2] - 100).abs().max() < 10


def _growing(job: Job, folder: str, **changes: object) -> Job:
    return job_with(job, folder, **{**GROWING, "epochs": 4, "average": 0.9, **changes})


def test_training_sees_each_size_in_its_turn_and_judges_at_the_last(job: Job) -> None:
    training = Training(_growing(job, "seen"))
    seen: list[tuple[bool, int]] = []
    hooks = [
        network.body.register_forward_pre_hook(lambda _, given, learns=learns: seen.append((learns, given[0].shape[2])))
        for learns, network in ((True, training.network), (False, training.evaluated_network))
    ]
    for _ in range(4):
        training.epoch()
    assert len(hooks) == 2
    steps = len(training.train)
    assert [side for learns, side in seen if learns] == [32] * 2 * steps + [36] * 2 * steps
    assert {side for learns, side in seen if not learns} == {36}


def test_the_size_reaches_the_weights_and_the_kept_network_answers_at_the_last(job: Job) -> None:
    grown, plain = _growing(job, "grown"), _growing(job, "plain", sizes=())
    fitted = isolated(fitting, grown)
    isolated(fitting, plain)
    name = "body.conv1.0.weight"
    assert not torch.equal(weights(grown, CHECKPOINT)[name], weights(plain, CHECKPOINT)[name])
    assert network_of(grown, fitted, grown.folder / BEST).size == 36


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.slow
def test_a_training_killed_while_it_grows_ends_with_the_same_weights(job: Job, epoch: int) -> None:
    """The second epoch is the last small one: what is killed after it goes on at the next size."""
    whole, broken = _growing(job, "whole"), _growing(job, "broken")
    isolated(fitting, whole)

    with pytest.raises(WorkerError, match="SIGKILL"):
        isolated(fitting, broken, on_event=kill_after(epoch, 0.02))
    isolated(fitting, broken)
    expected, found = weights(whole, CHECKPOINT), weights(broken, CHECKPOINT)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.slow
def test_rungs_pause_a_growing_training_in_its_own_schedule(
    rows: Rows, learn: LearnSettings, runtime: Runtime, tmp_path: Path
) -> None:
    growing = learn.model_copy(update={**GROWING, "epochs": 3})
    fold = Fold(index=1, count=3, seed=30)
    unbroken = tried(rows, growing, {}, 0, fold, runtime.model_copy(update={"workspace": tmp_path / "other"}))
    paused = None
    for until in (1, 2):
        paused = tried(rows, growing, {}, 0, fold, runtime, until=until, paused=paused)
    last = tried(rows, growing, {}, 0, fold, runtime, paused=paused)
    assert (last.digest, last.metrics) == (unbroken.digest, unbroken.metrics)
    curves = [pl.read_parquet(one.folder / "curves.parquet").drop("seconds") for one in (last, unbroken)]
    assert curves[0].equals(curves[1])
    assert tried(rows, growing, {"sizes": []}, 0, fold, runtime).digest != last.digest


@pytest.mark.slow
def test_patience_does_not_run_out_below_the_full_size(job: Job) -> None:
    patient = dataclasses.replace(_growing(job, "patient", epochs=12, lr=1e-9, average=0.0), patience=2)
    fitted = isolated(fitting, patient)
    assert len(fitted.curves) == max(fitted.best, 6) + 2
    plain = dataclasses.replace(_growing(job, "plain", epochs=12, lr=1e-9, average=0.0, sizes=()), patience=2)
    fitted = isolated(fitting, plain)
    assert len(fitted.curves) == fitted.best + 2 < 8
