"""Versions of code and packages, the machine, and the identity of a process."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

import agepipe

PACKAGES = (
    "agepipe", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "polars", "opencv-python", "scikit-learn",
    "mlflow", "prefect",
)  # fmt: skip
"""Distributions whose versions can change a result or its record."""


@cache
def environment() -> dict[str, str]:
    """Versions of the packages, the git commit when run from a checkout, Python, platform and cores.

    Packages that are not installed are left out. No package is imported.
    """
    known = {f"version.{name}": version(name) for name in PACKAGES}
    cores = {"cores": str(os.cpu_count()), "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}"}
    machine = {"python": platform.python_version(), "platform": platform.platform(), **cores}
    return {name: value for name, value in {**known, **_commit(), **machine}.items() if value}


def version(distribution: str) -> str:
    """The installed version of a distribution; empty when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def process() -> str:
    """A unique name of this process: host, process id, and start time (s since 1970)."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def gone(name: str) -> bool:
    """Whether the process with this name of `process()` has certainly ended; False for one on another host."""
    host, _, rest = name.rpartition(":")[0].rpartition(":")
    started = name.rpartition(":")[2]
    if host != socket.gethostname():
        return False
    try:
        found = psutil.Process(int(rest))
        return bool(found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - float(started)) > 1.0)
    except psutil.NoSuchProcess:
        return True


def _commit() -> dict[str, str]:
    """Commit of the checkout that tracks this package, and `true` when tracked files differ from it."""
    folder = Path(agepipe.__file__).parent
    # A virtual environment may be inside a checkout of another project, whose commit would be wrong here.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {}
    commit = _git(folder, "rev-parse", "HEAD") or ""
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") or ""
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
