"""Real chips out of the shared sample, and the detector's file, for tests of what looks for faces."""

from pathlib import Path

from agepipe.data import archives
from agepipe.model.imaging import Image, decode


def detector_file(shared: Path) -> Path:
    """YuNet, as it lies beside the photographs."""
    return shared / "yunet" / "face_detection_yunet_2026may.onnx"


def real_files(archive: Path, step: int = 1) -> dict[str, bytes]:
    """One in `step` of the chips of an archive, by file name."""
    return {entry.name: entry.read() for number, entry in enumerate(archives.entries(archive)) if number % step == 0}


def real_chips(archive: Path, step: int = 1) -> tuple[list[Image], list[int]]:
    """Chips, uint8 RGB 200×200, and their ages."""
    files = real_files(archive, step)
    return [decode(data) for data in files.values()], [int(name.partition("_")[0]) for name in files]
