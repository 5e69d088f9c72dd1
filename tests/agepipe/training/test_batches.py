import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agepipe.core.errors import ConfigError, DataError
from agepipe.data.pixel_store import open_pixels
from agepipe.training.batches import Batches, statistics
from agepipe.training.job import Examples, Job

CPU = torch.device("cpu")


def _shuffled(job: Job, seed: int, size: int = 16) -> list[tuple[torch.Tensor, ...]]:
    torch.manual_seed(seed)
    return list(Batches(open_pixels(job.pixels), job.train, size, CPU).shuffled())


def test_an_epoch_gives_each_row_once_with_its_own_picture(job: Job) -> None:
    store = open_pixels(job.pixels)
    batches = _shuffled(job, 1, size=15)
    assert len(batches) == 8
    images, labels, ages, genders, races = (torch.cat(column) for column in zip(*batches, strict=True))
    assert sorted(ages.tolist()) == sorted(job.train.ages.tolist())
    pictures = {row.tobytes(): age for row, age in zip(store[job.train.index], job.train.ages, strict=True)}
    assert [pictures[image.numpy().tobytes()] for image in images] == ages.tolist()
    assert labels.tolist() == job.ranges.classes(ages.numpy()).tolist()
    assert genders.tolist() == (ages % 2).tolist()
    assert sorted(races.tolist()) == sorted(job.train.races.tolist())
    assert -1 in races.tolist()


def test_batches_are_full_and_their_order_is_the_seeds(job: Job) -> None:
    assert {len(batch[0]) for batch in _shuffled(job, 1)} == {16}
    first, again, other = (torch.cat([batch[2] for batch in _shuffled(job, seed)]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_judging_goes_through_all_rows_in_order(job: Job) -> None:
    batches = list(Batches.for_validation(open_pixels(job.pixels), job.validation, 16, CPU).in_order())
    assert torch.cat([batch.ages for batch in batches]).tolist() == job.validation.ages.tolist()


def test_a_batch_larger_than_the_rows_is_refused(job: Job) -> None:
    with pytest.raises(ConfigError, match=r"learn\.batch: 500, but there are 120 training rows"):
        Batches(open_pixels(job.pixels), job.train, 500, CPU)


def test_a_row_outside_the_store_is_refused(job: Job) -> None:
    wrong = Examples(np.array([0, 900]), *(np.array([0, 0]) for _ in range(4)))
    with pytest.raises(DataError, match="holds 160 pictures, but row 900"):
        Batches(open_pixels(job.pixels), wrong, 2, CPU)


def _of(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return statistics([torch.from_numpy(pixels)])


def test_statistics_come_from_the_given_rows_alone(job: Job) -> None:
    store = np.asarray(open_pixels(job.pixels))
    mean, std = statistics(Batches(store, job.train, 16, CPU).blocks())
    rows = store[job.train.index].astype(np.float64) / 255
    assert mean == pytest.approx(rows.mean((0, 1, 2)))
    assert std == pytest.approx(rows.std((0, 1, 2)))
    assert mean != pytest.approx(store.astype(np.float64).mean((0, 1, 2)) / 255, abs=1e-6)


def test_statistics_do_not_stop_growing_with_many_rows() -> None:
    # a float32 sum of levels stands still above 2**24; 4,000 pictures of 96 px have 36 million pixels
    pixels = np.broadcast_to(np.array([250, 128, 3], dtype=np.uint8), (4000, 96, 96, 3))
    flicker = np.zeros((1, 96, 96, 3), dtype=np.uint8)
    mean, _ = _of(np.concatenate([pixels, flicker]))
    assert mean == pytest.approx(np.array([250, 128, 3]) / 255 * 4000 / 4001)


def test_statistics_of_real_photographs_are_those_of_utkface(faces: NDArray[np.uint8]) -> None:
    mean, std = _of(faces)
    # 700 chips, 50 of each range, are not distributed as the whole data set is
    assert mean == pytest.approx((0.598, 0.458, 0.391), abs=0.05)
    assert std == pytest.approx((0.257, 0.229, 0.224), abs=0.03)


def test_pictures_without_any_difference_are_refused() -> None:
    with pytest.raises(DataError, match="one value"):
        _of(np.full((3, 8, 8, 3), 7, dtype=np.uint8))


def test_a_process_reads_its_part_of_each_batch_and_the_labels_of_all(job: Job) -> None:
    store = open_pixels(job.pixels)
    whole = _shuffled(job, 1)
    torch.manual_seed(1)
    parts = list(Batches(store, job.train, 16, CPU).shuffled(slice(5, 11)))
    assert len(parts) == len(whole)
    for batch, part in zip(whole, parts, strict=True):
        assert torch.equal(part.images, batch[0][5:11])
        assert all(torch.equal(one, two) for one, two in zip(part[1:], batch[1:], strict=True))
        own = part.labels_of(slice(5, 11))
        assert torch.equal(own.images, part.images)
        assert torch.equal(own.ages, batch[2][5:11])


def test_statistics_of_parts_are_those_of_the_whole_to_the_last_digit(job: Job) -> None:
    batches = Batches(open_pixels(job.pixels), job.train, 16, CPU)
    sums: list[torch.Tensor] = []
    for part in (slice(0, 50), slice(50, 120)):
        statistics(batches.blocks(part), lambda one: (sums.append(one.clone()), one)[1])
    assert statistics([], lambda _: sums[0] + sums[1]) == statistics(batches.blocks())
