"""The flow that evaluates a model on its locked test rows or on other photographs."""

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, SourceSettings
from agepipe.data.records import Rows
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from flows.beginning import begin
from tasks.evaluate import champions_evaluation
from tasks.evaluate import evaluate as judge
from tasks.ingest import fingerprint, ingest
from tasks.parent import announced
from tasks.relabel import relabel
from tasks.resolve import ingest_settings, label_settings, resolve, test_rows


@flow(name="evaluate", flow_run_name="evaluate {model}", on_running=[begin])
def evaluate(
    model: str = "champion",
    data: tuple[str, ...] = (),
    name: str = "",
    settings: EvaluateSettings = EvaluateSettings(),
    exclude_seen: bool = False,
    runtime: Runtime | None = None,
) -> Evaluation:
    """Evaluate a model on rows that it has not seen; the result is cached.

    Args:
        model: An alias, a version, `models:/NAME/VERSION`, a run id, or a bundle folder.
        data: Folders or archives of labelled photographs; empty means the model's own locked test rows.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        settings: Bootstrap draws and confidence.
        exclude_seen: Leave out rows that the model has seen, instead of failing.
        runtime: Workspace, tracking store and device; by default those of the worker.
    """
    runtime = runtime or Runtime()
    found = resolve(model, name, runtime)
    rows = photographs(found, data, runtime) if data else test_rows(found, name, runtime)
    against = champions_evaluation(found, rows, name, runtime)
    return announced(judge(found, rows, settings, exclude_seen, against, runtime), runtime)


def photographs(model: Model, data: tuple[str, ...], runtime: Runtime) -> Rows:
    """Other photographs as rows with the ranges and the stored size of the model."""
    source = fingerprint(SourceSettings(data=data), runtime)
    return relabel(ingest(source, ingest_settings(model), runtime), label_settings(model), runtime)
