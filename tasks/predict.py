"""The stage that predicts one shard of photographs, and the fan-out of many shards over a flow's task runner."""

from collections.abc import Sequence
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.core.progress import Progress
from agepipe.model.records import Model
from agepipe.serving import shards as work
from agepipe.serving.records import Part, Shard
from tasks.stage import stage


@stage("predict", "predicted", version=1, run_name="{shard.title}")
def part(folder: Path, shard: Shard, model: Model, detector: str, runtime: Runtime) -> Part:
    """Predict the photographs of a shard; what a killed command has finished is not predicted again."""
    return work.part(shard, model, detector, folder, runtime)


def predict(shards: Sequence[Shard], model: Model, detector: str, runtime: Runtime, progress: Progress) -> list[Part]:
    """The parts of all shards, in their order, mapped over the flow's task runner.

    Args:
        shards: from `agepipe.serving.shards.shards`.
        model: the bundle.
        detector: title of the face detector; empty takes each photograph as an aligned face.
        runtime: device, workers and workspace.
        progress: called now and then, in photographs.
    """
    total = sum(shard.count for shard in shards)

    def watch(found: Sequence[Part | None]) -> None:
        done = sum(shard.count for shard, one in zip(shards, found, strict=True) if one is not None)
        progress(done, total, f"{sum(one is not None for one in found)} of {len(shards)} parts")

    calls = [{"shard": shard, "model": model, "detector": detector, "runtime": runtime} for shard in shards]
    return [one for one in part.gather(calls, watch) if one is not None]
