"""The stage that users rerun most: what a model does on rows that it has not seen."""

from agepipe.config import EvaluateSettings, Where
from agepipe.judge import evaluate as work
from agepipe.records import Evaluation, Model, Rows, digest_of
from tasks.stage import stage
from tasks.track import tracked
from tasks.watch import watch


@stage("evaluate", version=2)
def evaluate(model: Model, rows: Rows, settings: EvaluateSettings, exclude_seen: bool, where: Where) -> Evaluation:
    """Judge the exported model on rows that its lineage does not know, and write the report."""
    key = digest_of(model, rows, settings, exclude_seen)
    with tracked("evaluate", f"evaluate on {rows.name}", key, where, {"evaluate": settings}) as run:
        run.dataset(rows, "test")
        done = work.evaluate(model, rows, settings, where, exclude_seen=exclude_seen, progress=watch("evaluate"))
        run.metrics(done.metrics)
        run.artifacts(done.folder, "evaluation")
    return done.model_copy(update={"run": run.run_id})
