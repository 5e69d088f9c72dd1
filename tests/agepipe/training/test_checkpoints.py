import resource
from pathlib import Path

import pytest
import torch

from agepipe.core.errors import ModelError, TrainingError
from agepipe.training import checkpoints
from agepipe.training.worker import isolated


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {"weights": torch.rand(3), "epoch": 4, "curves": [{"loss": 0.5}], "mean": (0.1, 0.2, 0.3)}
    checkpoints.save(state, tmp_path / "checkpoint.pt")
    found = checkpoints.load(tmp_path / "checkpoint.pt")
    assert found is not None
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert checkpoints.load(tmp_path / "none.pt") is None


def _save_on_a_full_disk(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    checkpoints.save({"weights": torch.rand(100_000)}, Path(path))


@pytest.mark.slow
def test_a_write_that_fails_leaves_the_last_good_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save({"epoch": 1}, path)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: could not be written \(File too large"):
        isolated(_save_on_a_full_disk, str(path))
    assert checkpoints.load(path) == {"epoch": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save({"weights": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match=f"delete {tmp_path} to start again"):
        checkpoints.load(path)


def test_random_numbers_go_on_where_they_were() -> None:
    state = checkpoints.random_state(torch.device("cpu"))
    drawn = torch.rand(3)
    checkpoints.restore_random_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn)
