"""The flow that predicts many photographs in parts, mapped over a task runner that is chosen."""

from itertools import chain, repeat
from pathlib import Path

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.core.errors import SourceError
from agepipe.serving import shards as sharding
from agepipe.serving.detect.detector import load_detector
from agepipe.serving.records import Part
from flows.beginning import begin
from flows.runners import surviving
from tasks.predict import predict as parts_of
from tasks.resolve import resolve
from tasks.watch import watch


@flow(name="predict", flow_run_name="predict with {model}", on_running=[begin])
def _predict(paths: tuple[Path, ...], model: str, name: str, aligned: bool, shard: int, runtime: Runtime) -> list[Part]:
    found = resolve(model, name, runtime)
    detector = "" if aligned else load_detector(runtime)[0].title
    shards = list(sharding.shards(paths, shard))
    if not shards:
        raise SourceError(f"path: {', '.join(map(str, paths))} holds no files; name photographs.")
    return parts_of(shards, found, detector, runtime, watch("predict"))


def predict(
    paths: tuple[Path, ...], model: str, name: str, *, aligned: bool, shard: int, runtime: Runtime
) -> list[Part]:
    """Predict photographs in parts, each a cached result, so that a killed command continues with the missing ones.

    Args:
        paths: photographs, folders and archives.
        model: an alias, a version, a run id, or a bundle folder.
        name: the registered model; empty takes `agepipe`, or the only one there is.
        aligned: whether each photograph is an aligned face.
        shard: photographs in a part.
        runtime: runner, workers, device and workspace.

    Raises:
        SourceError: a folder cannot be listed, or there is no file.
        WorkerError: workers of the runner died again and again, or one of a Dask scheduler lacks something.
    """
    # the parts decode on the cores and share a GPU, so its number does not limit them
    on_cores = runtime.model_copy(update={"device": "cpu"})
    # a further attempt keeps what the first one has computed
    attempts = chain([runtime], repeat(runtime.model_copy(update={"refresh": ()})))
    return surviving(
        on_cores, "take fewer --workers",
        lambda ready: _predict.with_options(task_runner=ready)(paths, model, name, aligned, shard, next(attempts)),
    )  # fmt: skip
