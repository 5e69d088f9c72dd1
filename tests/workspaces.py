"""Where tests keep a workspace and its tracking store."""

from pathlib import Path
from typing import Any

from agepipe.config.runtime import Runtime


def runtime_in(folder: Path, **more: Any) -> Runtime:
    """A workspace and a tracking store in one folder, as a command started there has them, on the CPU."""
    tracking = f"sqlite:///{folder}/mlruns/mlflow.db"
    return Runtime(workspace=folder / "workspace", tracking=tracking, device="cpu", **more)
