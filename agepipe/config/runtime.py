"""How and where the work is done: device, workers, folders. It never enters the digest of a result; `Config` does."""

import hashlib
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from agepipe.config.base import Settings
from agepipe.core import storage
from agepipe.core.errors import ConfigError
from agepipe.core.mirror import Mirror

StageName = Literal["ingest", "audit", "relabel", "split", "search", "train", "evaluate", "compare", "predict"]
STAGES: tuple[StageName, ...] = (
    "ingest", "audit", "relabel", "split", "search", "train", "evaluate", "compare", "predict",
)  # fmt: skip
"""The stages whose results are cached, in the order in which they run."""


TRACKING = ("AGEPIPE_TRACKING", "MLFLOW_TRACKING_URI")
"""Environment variables that name the tracking store; the first that is set counts."""
EXPERIMENT = ("AGEPIPE_EXPERIMENT", "MLFLOW_EXPERIMENT_NAME")
"""Those that name the experiment."""


def first_set(variables: tuple[str, ...], default: str) -> str:
    """The value of the first environment variable that is set and not empty, or else the default."""
    return next(filter(None, map(os.environ.get, variables)), default)


def absolute(tracking: str) -> str:
    """A tracking URI with an absolute path, so that a local store is the same file in every process."""
    scheme, path = "sqlite:///", Path(tracking.removeprefix("sqlite:///"))
    return f"{scheme}{path.expanduser().absolute()}" if tracking.startswith(scheme) else tracking


def _filled(path: object) -> object:
    """An empty path would mean the current folder."""
    if path == "":
        raise ValueError("it is empty; name a folder")
    return path


def cache_of(uri: str) -> Path:
    """The folder on this machine of a workspace that is named by a URI; AGEPIPE_CACHE says where all of them are."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", uri).strip("-.")[-60:]
    folder = os.environ.get("AGEPIPE_CACHE") or Path.home() / ".cache" / "agepipe"
    return Path(folder) / f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


class Runtime(Settings):
    """Where and how the work is done; never part of a result's digest."""

    workspace: Annotated[Path, BeforeValidator(_filled), AfterValidator(lambda path: path.expanduser().absolute())] = (
        Field(default_factory=lambda: Path(os.environ.get("AGEPIPE_WORKSPACE") or "workspace"), validate_default=True)
    )
    """Folder of data sets, checkpoints, bundles, evaluations and the stages' records. The default is AGEPIPE_WORKSPACE,
    which `agepipe up` sets for its worker, or else `workspace`. A URI such as `s3://BUCKET/FOLDER` stands for a folder
    in the cache of this machine, and for `bucket`."""
    bucket: str = ""
    """URI into which finished results are copied, and from which those of other machines are fetched; set by a URI as
    `workspace`."""
    tracking: Annotated[str, AfterValidator(absolute)] = Field(
        default_factory=lambda: first_set(TRACKING, "sqlite:///mlruns/mlflow.db"), validate_default=True
    )
    """MLflow tracking URI: a local SQLite file, or the address of a server. AGEPIPE_TRACKING, or else
    MLFLOW_TRACKING_URI, sets the default."""
    experiment: Annotated[str, Field(min_length=1)] = Field(default_factory=lambda: first_set(EXPERIMENT, "agepipe"))
    """MLflow experiment. AGEPIPE_EXPERIMENT, or else MLFLOW_EXPERIMENT_NAME, sets the default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training; `auto` uses a GPU if there is one."""
    workers: Annotated[int, Field(ge=0, le=512)] = 0
    """Number of concurrent trials or decoders on each machine; 0 means one per core. No more trials run than cores."""
    threads: Annotated[int, Field(ge=0, le=512)] = 0
    """Threads of the final training, in all its processes together; 0 means one per core. A trial has
    cores // workers."""
    processes: Annotated[int | None, Field(ge=1, le=512)] = None
    """Processes on this machine that share the final training, each with its part of every batch; None means one per
    GPU, or one without GPUs. Under a launcher such as torchrun they are the ranks on this machine."""
    gpu_trials: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of concurrent trials on each GPU; a single trial of a small network leaves most of the GPU idle."""
    runner: Literal["threads", "processes", "dask"] = "threads"
    """Where the trials of a search and the parts of many predictions run: threads, processes, or Dask workers; the
    result is the same."""
    scheduler: str = ""
    """Address of a running Dask scheduler, such as `tcp://host:8786`; empty starts workers here (`runner = "dask"`)."""
    refresh: tuple[StageName, ...] = ()
    """Stages to compute again, with all stages after them, even if their results are cached."""

    def refreshes(self, stage: StageName) -> bool:
        """Whether the user requested that this stage, or one before it, be computed again."""
        return any(STAGES.index(asked) <= STAGES.index(stage) for asked in self.refresh)

    @model_validator(mode="before")
    @classmethod
    def _split_uri(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        uri = str(values.get("workspace") or os.environ.get("AGEPIPE_WORKSPACE") or "").rstrip("/")
        if not storage.is_uri(uri) or values.get("workspace") == "":
            return values
        storage.check_uri("workspace", uri)
        return {**values, "workspace": cache_of(uri), "bucket": uri}

    @model_validator(mode="after")
    def _check_bucket(self) -> Self:
        if self.bucket:
            storage.check_uri("bucket", self.bucket)
        return self

    def here(self) -> Self:
        """The runtime as a worker of a Dask scheduler uses it, whose folder for the bucket may have another path."""
        return self.model_copy(update={"workspace": cache_of(self.bucket)}) if self.bucket and self.scheduler else self

    @property
    def mirror(self) -> Mirror:
        """The copy of the workspace in the bucket, if there is one."""
        return Mirror(self.bucket, self.workspace)

    @model_validator(mode="after")
    def _check_runner(self) -> Self:
        if self.scheduler and self.runner != "dask":
            raise ConfigError(f"scheduler: '{self.scheduler}' does nothing with runner = '{self.runner}'; take 'dask'.")
        if self.runner == "dask" and find_spec("prefect_dask") is None:
            raise ConfigError(
                "runner: 'dask' needs a package that is not installed; install agepipe[dask] (uv run --extra dask), or "
                "take 'threads' or 'processes'."
            )
        return self

    @model_validator(mode="after")
    def _check_processes(self) -> Self:
        if (self.processes or 1) > 1 and not _can_share():
            raise ConfigError(
                f"processes: {self.processes} need a package that is not installed; install agepipe[distributed] (uv "
                "run --extra distributed), or take 1."
            )
        return self

    def processes_for(self, batch: int) -> int:
        """Number of processes of the final training on this machine, for batches of `batch` rows."""
        return self.processes or (min(max(1, self.gpu_count), batch) if _can_share() else 1)

    @property
    def gpu_count(self) -> int:
        """GPUs that may be used."""
        return 0 if self.device == "cpu" else gpus()

    @property
    def worker_count(self) -> int:
        """Trials and decoders at a time."""
        return self.workers or cores()

    @property
    def trial_count(self) -> int:
        """Trials at a time: as many as workers, but at most one per core and `gpu_trials` per GPU."""
        most = self.gpu_count * self.gpu_trials or cores()
        return min(self.worker_count, cores(), most)

    @property
    def trial_threads(self) -> int:
        """Threads of one trial, so that trials at a time × threads never exceed the cores."""
        return max(1, cores() // self.worker_count)

    @property
    def thread_count(self) -> int:
        """Threads of the final training."""
        return self.threads or cores()


def _can_share() -> bool:
    return find_spec("lightning_fabric") is not None


def gpus() -> int:
    """Number of NVIDIA GPUs that this process may use, counted without importing torch."""
    devices = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return visible(len(devices), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(devices: int, named: str | None) -> int:
    """Number of devices that CUDA shows: all, or those that are named before the first name that does not exist.

    Args:
        devices: number of devices of the machine.
        named: CUDA_VISIBLE_DEVICES, by number or by UUID; None if it is not set.
    """
    if named is None:
        return devices
    names = [name.strip() for name in named.split(",")]
    there = [int(name) < devices if name.isdigit() else name.startswith(("GPU-", "MIG-")) for name in names]
    return min(devices, (*there, False).index(False))


def cores() -> int:
    """Number of cores that this process may use."""
    return len(own_cores())


def own_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
