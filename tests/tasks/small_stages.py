"""Stages and flows small enough to count how often each is computed."""

from collections import Counter
from pathlib import Path

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings
from agepipe.core.errors import SourceError
from agepipe.data.records import Catalogue
from tasks.stage import stage

calls: Counter[str] = Counter()


def made(folder: Path, digest: str) -> Catalogue:
    (folder / "pixels.npy").touch()
    return Catalogue(digest=digest, name="made", folder=folder, size=64, count=1, rejected=0)


@stage("ingest", "datasets", version=1)
def first(folder: Path, settings: IngestSettings, runtime: Runtime) -> Catalogue:
    calls["first"] += 1
    if settings.min_side == 1:
        raise SourceError("min_side: planted")
    return made(folder, f"first {settings.size}")


@stage("audit", "audits", version=1, run_name="second {factor}")
def second(folder: Path, catalogue: Catalogue, factor: int, runtime: Runtime) -> Catalogue:
    calls[f"second {factor}"] += 1
    return made(folder, f"{catalogue.digest} {factor}")


@stage("split", "splits", version=1)
def kept(folder: Path, runtime: Runtime) -> Catalogue:
    calls["kept"] += 1
    return made(folder, "kept")


@stage("train", "models", version=1, resumes=True)
def slow(folder: Path, runtime: Runtime) -> Catalogue:
    """It is interrupted after its first half."""
    if not (folder / "half").exists():
        (folder / "half").touch()
        raise SourceError("planted")
    calls["second half"] += 1
    return made(folder, "slow")


@flow
def kept_flow(runtime: Runtime) -> Catalogue:
    return kept(runtime)


@flow
def slow_flow(runtime: Runtime) -> Catalogue:
    return slow(runtime)


@flow
def chain(settings: IngestSettings, runtime: Runtime, factors: tuple[int, ...] = (1, 2)) -> list[Catalogue]:
    catalogue = first(settings, runtime)
    return second.gather({"catalogue": catalogue, "factor": factor, "runtime": runtime} for factor in factors)
