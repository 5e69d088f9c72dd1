from pathlib import Path

import numpy as np
import pytest

from agepipe.core.errors import DataError
from agepipe.data.pixel_store import PixelWriter, open_pixels

PICTURES = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def write(path: Path, pictures: np.ndarray, rows: int = 0, finish: bool = True) -> None:
    with PixelWriter(path, 32, rows) as writer:
        writer.append(pictures)
        if finish:
            writer.finish()


def test_what_was_written_is_read_through_a_memory_map(tmp_path: Path) -> None:
    write(tmp_path / "pixels.npy", PICTURES)
    found = open_pixels(tmp_path / "pixels.npy", size=32)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, PICTURES)


def test_what_the_system_has_let_go_of_is_read_from_the_disk(tmp_path: Path) -> None:
    part = np.random.default_rng(1).integers(0, 256, (4096, 32, 32, 3), dtype=np.uint8)
    with PixelWriter(tmp_path / "pixels.npy", 32) as writer:
        for turn in range(9):
            writer.append(part + np.uint8(turn))
        writer.finish()
    found = open_pixels(tmp_path / "pixels.npy")
    assert len(found) == 9 * 4096
    assert all(np.array_equal(found[turn * 4096 :][:4096], part + np.uint8(turn)) for turn in range(9))


def test_a_writer_goes_on_behind_the_rows_that_count(tmp_path: Path) -> None:
    write(tmp_path / "whole.npy", PICTURES)
    write(tmp_path / "resumed.npy", PICTURES[:5], finish=False)
    write(tmp_path / "resumed.npy", PICTURES[3:], rows=3)
    assert (tmp_path / "resumed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_store_shorter_than_its_journal_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pixels.npy", PICTURES[:2], finish=False)
    with pytest.raises(DataError, match="shorter than the 5 rows"):
        PixelWriter(tmp_path / "pixels.npy", 32, rows=5)


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="32 px"):
        write(tmp_path / "pixels.npy", np.zeros((1, 16, 16, 3), np.uint8))


def test_a_store_of_another_shape_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pixels.npy", PICTURES)
    with pytest.raises(DataError, match="expected"):
        open_pixels(tmp_path / "pixels.npy", size=64)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("not numpy")
    for name in ("absent.npy", "text.npy"):
        with pytest.raises(DataError, match="not a pixel store"):
            open_pixels(tmp_path / name)


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 9, 3), (4, 8, 8, 1), ()])
def test_pictures_that_are_not_square_or_not_rgb_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "pixels.npy", np.zeros(shape, dtype=np.uint8))
    with pytest.raises(DataError, match=r"pixels\.npy"):
        open_pixels(tmp_path / "pixels.npy")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pixels.npy").touch()
    with pytest.raises(DataError, match=r"pixels\.npy"):
        open_pixels(tmp_path / "pixels.npy")
