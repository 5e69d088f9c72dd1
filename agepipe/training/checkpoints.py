"""Checkpoint files, written atomically, and the random state that they contain."""

import io
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from agepipe.core.errors import ModelError, TrainingError


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values atomically; after a power cut the file has its old or its new content.

    Raises:
        TrainingError: the disk is full or not writable; an earlier file is unchanged.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the name may belong to a folder
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"{path}: could not be written ({error.strerror}, {len(content):,} bytes); the last good checkpoint is "
            "kept: make room, and run the same command again to resume from it."
        ) from error


def load(path: Path) -> dict[str, Any] | None:
    """Read a file of `save` onto the CPU; None if there is none. Only tensors and plain values are unpickled.

    Raises:
        ModelError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path}: damaged, so the training cannot be resumed; delete {path.parent} to start again."
        ) from error


def random_state(device: torch.device) -> dict[str, Any]:
    """State of torch's random number generators, of the CPU and of the device if that is a GPU."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what `random_state` returned; the device may be another GPU."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
