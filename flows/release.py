"""The flow that decides whether a version becomes the champion."""

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, ReleaseSettings
from agepipe.registry.records import Registered
from flows.beginning import begin
from tasks.register import release as decide
from tasks.resolve import resolve, test_rows


@flow(name="release", flow_run_name="release {model}", on_running=[begin])
def release(
    model: str = "challenger",
    name: str = "",
    settings: ReleaseSettings = ReleaseSettings(),
    evaluate: EvaluateSettings = EvaluateSettings(),
    runtime: Runtime | None = None,
) -> Registered:
    """Compare a version with the champion on the same locked rows, and promote it if it is significantly better.

    Args:
        model: The candidate: an alias, a version, or a run.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        settings: Figure, confidence, minimum number of rows, and limits for slices; `model` is ignored.
        evaluate: Bootstrap draws.
        runtime: Workspace, tracking store and device; by default those of the worker.
    """
    runtime = runtime or Runtime()
    found = resolve(model, name, runtime)
    return decide(found, test_rows(found, name, runtime), name, settings, evaluate, runtime)
