"""Files of a training that are there whole or not at all, and the random state that goes into them."""

import io
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from agepipe.core.errors import ModelError, TrainingError


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values under a temporary name, to the disk itself, then rename.

    Raises:
        TrainingError: the disk is full or cannot be written; the file that was there before is untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(buffer.getbuffer(), path)


def write_whole(content: bytes | memoryview, path: Path) -> None:
    """Write bytes so that after a power cut the file has either its old or its new content.

    Raises:
        TrainingError: the disk is full or cannot be written; the file that was there before is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # what stands in the way may be no file of ours
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"{path}: could not be written ({error.strerror}, {len(content):,} bytes); the last good checkpoint is "
            "kept: make room, and the same command goes on from it."
        ) from error


def load(path: Path) -> dict[str, Any] | None:
    """What `save` wrote, on the CPU; None when there is no file. Nothing but tensors and plain values is unpickled.

    Raises:
        ModelError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path}: damaged, so training cannot go on from it; delete {path.parent} to start anew."
        ) from error


def random_state(device: torch.device) -> dict[str, Any]:
    """Where torch's random numbers stand, on the CPU and on the GPU that is the device."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on drawing where `random_state` was taken, on another GPU too."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
