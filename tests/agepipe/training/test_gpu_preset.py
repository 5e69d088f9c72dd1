"""Recipes for machines that are not at hand really run: the network, size and optimizer of the preset, a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from agepipe.config import presets
from agepipe.model.ages import AgeRanges
from agepipe.training import loop
from agepipe.training.augment import Part, augment
from agepipe.training.face_resnet import MEAN
from agepipe.training.job import Examples, Job
from agepipe.training.loop import BEST, Training, network_of

RANGES = AgeRanges.of("utkface")
ROWS = 20


def _job(folder: Path) -> Job:
    """The last training of the `gpu` preset, on few rows in small batches, stored as it stores them."""
    config = presets.load("gpu", {"learn.batch": 6, "learn.epochs": 3})
    rng = np.random.default_rng(1)
    ages = rng.integers(1, 90, ROWS)
    levels = np.clip(ages[:, None, None, None] * 2 + rng.normal(40, 20, (ROWS, *[config.ingest.size] * 2, 3)), 0, 255)
    np.save(folder / "pixels.npy", levels.astype(np.uint8))
    columns = (np.arange(ROWS), ages, RANGES.classes(ages).astype(np.int64), ages % 2, ages % 5)
    parts = [Examples(*(column[part] for column in columns)) for part in (slice(0, 12), slice(12, None))]
    return Job(
        folder=folder / "training", pixels=folder / "pixels.npy", train=parts[0], validation=parts[1], ranges=RANGES,
        learn=config.learn, metric=None, device="cpu",
    )  # fmt: skip


def test_the_gpu_preset_trains_a_few_steps_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, given = _job(tmp_path), []

    def watched(images: Tensor, size: int, settings: object, part: Part) -> Tensor:
        given.append((tuple(images.shape), size, settings))
        return augment(images, size, settings, part)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "augment", watched)
    training = Training(job)
    first = [one.detach().clone() for one in training.network.parameters()]
    event = [training.epoch() for _ in range(3)][-1]
    sizes = [size for size in job.learn.sizes for _ in range(2)]
    assert [(size, settings) for _, size, settings in given] == [(size, job.learn.augment) for size in sizes]
    assert given[-1][0] == (6, 192, 192, 3)
    assert all(getattr(job.learn.augment, name) > 0 for name in ("rotate", "scale", "brightness", "contrast", "erase"))
    assert all(not torch.equal(one, two) for one, two in zip(first, training.network.parameters(), strict=True))
    assert np.isfinite(list(event.metrics.values())).all()
    assert training.network.readout.by_year
    assert training.mean == MEAN  # that of the pretraining
    assert isinstance(training.optimizer, AdamW)
    assert isinstance(training.schedule, OneCycleLR)
    assert len({group["max_lr"] for group in training.optimizer.param_groups}) > 1  # lower rates for earlier blocks
    kept = network_of(job, training.result(), job.folder / BEST)
    assert (kept.size, kept.mirror) == (176, True)
    probabilities, years = kept(torch.from_numpy(np.load(job.pixels)[:2]))
    assert probabilities.shape == (2, len(RANGES))
    assert torch.isfinite(years).all()
