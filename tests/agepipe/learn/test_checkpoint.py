import resource
from pathlib import Path

import pytest
import torch

from agepipe.errors import ModelError, TrainingError
from agepipe.learn import checkpoint
from agepipe.learn.process import isolated


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {"weights": torch.rand(3), "epoch": 4, "curves": [{"loss": 0.5}], "mean": (0.1, 0.2, 0.3)}
    checkpoint.save(state, tmp_path / "checkpoint.pt")
    found = checkpoint.load(tmp_path / "checkpoint.pt")
    assert found is not None
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert checkpoint.load(tmp_path / "none.pt") is None


def _save_on_a_full_disk(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    checkpoint.save({"weights": torch.rand(100_000)}, Path(path))


def test_a_write_that_fails_leaves_the_last_good_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"epoch": 1}, path)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: could not be written \(File too large"):
        isolated(_save_on_a_full_disk, str(path))
    assert checkpoint.load(path) == {"epoch": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"weights": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match=f"delete {tmp_path} to start anew"):
        checkpoint.load(path)


def test_random_numbers_go_on_where_they_were() -> None:
    state = checkpoint.random_state(torch.device("cpu"))
    drawn = torch.rand(3)
    checkpoint.restore_random_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn)
