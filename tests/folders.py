"""New folders for library stages, each of which fills one."""

from pathlib import Path
from tempfile import mkdtemp


def fresh(parent: Path) -> Path:
    """An empty folder in `parent`, which is made where it is missing."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(dir=parent))
