"""The flow that compares models on test rows that none of them has seen."""

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.records import Compared
from flows.beginning import begin
from flows.evaluate import photographs
from tasks.compare import compare as judge
from tasks.parent import compared
from tasks.resolve import largest, resolve, shared_rows, title


@flow(name="compare", flow_run_name="compare {models}", on_running=[begin])
def compare(
    models: tuple[str, ...] = ("champion", "challenger"),
    data: tuple[str, ...] = (),
    anew: bool = False,
    name: str = "",
    settings: EvaluateSettings = EvaluateSettings(),
    runtime: Runtime | None = None,
) -> Compared:
    """Compare each model with the first; the result is cached.

    Args:
        models: Two or more aliases, versions, `models:/NAME/VERSION`, run ids, or bundle folders.
        data: Folders or archives of labelled photographs; empty means the locked test rows that all models share.
        anew: If the models' test rows differ, use the first model's, without rows that another has seen.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        settings: Bootstrap draws and confidence.
        runtime: Workspace, tracking store and device; by default those of the worker.
    """
    runtime = runtime or Runtime()
    found = tuple(resolve(model, name, runtime) for model in models)
    titles = tuple(title(text, model, name, runtime) for text, model in zip(models, found, strict=True))
    rows = photographs(largest(found), data, runtime) if data else shared_rows(found, titles, name, anew, runtime)
    return compared(judge(found, titles, rows, settings, runtime), runtime)
