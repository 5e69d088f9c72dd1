"""What a launcher says in environment variables: which rank this process is, of how many, and where they meet.

torchrun, Kubernetes operators such as Kubeflow's, and a user who starts each rank set RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT, and mostly LOCAL_RANK and LOCAL_WORLD_SIZE. SLURM sets variables of its own, which Lightning Fabric reads.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec

from agepipe.core.errors import ConfigError

PLAIN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables with which `torch.distributed` starts, without LOCAL_RANK and LOCAL_WORLD_SIZE, which may be missing."""
STEP_TASKS = "SLURM_STEP_NUM_TASKS"
"""Number of processes that srun has started; a batch script that starts agepipe without srun does not have it."""


@dataclass(frozen=True)
class Position:
    """The position of this process among those that a launcher has started."""

    rank: int
    """From 0; the first one runs the pipeline, and the others take part in its final trainings."""
    count: int
    """Number of ranks on all machines; more than one."""
    host: str
    """Machine of rank 0, as the others reach it."""
    port: int
    """Port at which the ranks meet."""
    local_rank: int = 0
    """Number of the rank on its machine."""
    local_count: int = 1
    """Ranks that share the cores of this machine."""
    hosted: bool = False
    """Whether the launcher itself hosts the store at that port; otherwise rank 0 does."""


def position() -> Position | None:
    """The position of this process; None if no launcher has started several.

    Raises:
        ConfigError: a variable is missing or no number, or the extra `distributed` is not installed.
    """
    if "RANK" in os.environ and _number("WORLD_SIZE", 1) > 1:
        _check_installed("WORLD_SIZE")
        return _plain()
    if _number(STEP_TASKS, 1) > 1:
        _check_installed(STEP_TASKS)
        return _slurm()
    return None


def _plain() -> Position:
    missing = [name for name in PLAIN if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"{missing[0]} is not set, but WORLD_SIZE is {os.environ['WORLD_SIZE']}; a launcher such as torchrun sets "
            f"{', '.join(PLAIN)}; to run alone, unset WORLD_SIZE."
        )
    rank, count = _number("RANK"), _number("WORLD_SIZE")
    if not 0 < (port := _number("MASTER_PORT")) < 2**16:
        raise ConfigError(f"MASTER_PORT: {port} is not a port; give a number from 1 to 65535.")
    if rank >= count:
        raise ConfigError(f"RANK: {rank}, but WORLD_SIZE is {count}; ranks are numbered from 0 to {count - 1}.")
    return Position(
        rank, count, os.environ["MASTER_ADDR"], port, _number("LOCAL_RANK", 0),
        _number("LOCAL_WORLD_SIZE", 1), hosted=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )  # fmt: skip


def _slurm() -> Position:
    from lightning_fabric.plugins.environments import SLURMEnvironment

    try:
        found = SLURMEnvironment()
        # SLURM gives each task cores of its own, so no rank shares the cores that this process may use
        return Position(
            found.global_rank(), found.world_size(), found.main_address, found.main_port, found.local_rank()
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(f"{STEP_TASKS}: {os.environ[STEP_TASKS]}, but {error}") from error


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name) or ("" if default is None else str(default))
    if not text.isdecimal():
        raise ConfigError(f"{name}: '{text}' in the environment is not a number; a launcher sets it to one.")
    return int(text)


def _check_installed(name: str) -> None:
    if find_spec("lightning_fabric") is None:
        raise ConfigError(
            f"{name}: {os.environ[name]} processes that share a training need a package that is not installed; install "
            "agepipe[distributed] (uv run --extra distributed), or start one process."
        )
