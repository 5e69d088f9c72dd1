import cv2
import numpy as np
import pytest

from agepipe.config.stages import IngestSettings
from agepipe.data.archives import Entry
from agepipe.data.duplicates import thumbnails
from agepipe.data.examine import LEDGER, examine
from agepipe.model.phash import TALL, luma, perceptual_hashes


@pytest.mark.parametrize("size", [32, 37, 72, 101, 108])
def test_pictures_measured_together_are_what_they_are_alone(size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (TALL + 3, size, size, 3), dtype=np.uint8)
    alone = [pixels[position : position + 1] for position in range(len(pixels))]
    assert np.array_equal(thumbnails(pixels), np.concatenate([thumbnails(one) for one in alone]))
    assert perceptual_hashes(pixels) == [perceptual_hashes(one)[0] for one in alone]


@pytest.mark.parametrize("size", [32, 37, 108])
def test_light_is_the_mean_and_the_variance_of_the_laplacian_inside_the_border(size: int) -> None:
    random = np.random.default_rng(size)
    pictures = [random.integers(low, 256, (size, size, 3), dtype=np.uint8) for low in range(0, 250, 7)]
    files = [cv2.imencode(".png", picture[..., ::-1])[1].tobytes() for picture in pictures]
    entries = [Entry("25_0_2_20170104020210475.png", len(data), lambda data=data: data) for data in files]
    found = examine(entries, IngestSettings(size=size), np.empty((len(files), size, size, 3), np.uint8)).ledger
    for row, grey in zip(found.rows(named=True), luma(np.stack(pictures)), strict=True):
        bends = cv2.Laplacian(grey, cv2.CV_64F)[1:-1, 1:-1]
        assert row["brightness"] == pytest.approx(grey.mean() / 255, rel=1e-4)
        assert row["sharpness"] == pytest.approx(bends.var(), rel=1e-4)


def test_grey_pictures_give_what_their_colours_give() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    assert np.array_equal(thumbnails(luma(pixels)), thumbnails(pixels))
    assert perceptual_hashes(luma(pixels)) == perceptual_hashes(pixels)


def test_no_pictures_are_no_trouble() -> None:
    none = np.empty((0, 40, 40, 3), dtype=np.uint8)
    assert thumbnails(none).shape == (0, 24, 24)
    assert perceptual_hashes(none) == []


def test_files_without_a_single_photograph_still_have_their_rows() -> None:
    entry = Entry("faces/25_0_2_20170104020210475.jpg", 4, lambda: b"text")
    examined = examine([entry, entry], IngestSettings(size=32), np.empty((2, 32, 32, 3), np.uint8))
    assert dict(examined.ledger.schema) == LEDGER
    assert examined.ledger["reason"].to_list() == ["not an image"] * 2
    assert examined.ledger["age"].null_count() == 2
    assert examined.pixels.shape == (0, 32, 32, 3)


def test_a_file_too_large_for_any_allowed_picture_is_not_read() -> None:
    def read() -> bytes:
        raise AssertionError("read")

    entry = Entry("25_0_2_20170104020210475.jpg", 5_000, read)
    examined = examine([entry], IngestSettings(size=32, max_pixels=1_000), np.empty((1, 32, 32, 3), np.uint8))
    assert examined.ledger["reason"].to_list() == ["too large"]
