"""The stage that evaluates a model on rows that it has not seen."""

from pathlib import Path

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.records import Evaluation
from agepipe.model.bundle import read_card
from agepipe.model.records import Model
from agepipe.registry import lookup
from agepipe.reports import evaluation as work
from agepipe.reports import report
from tasks.stage import stage
from tasks.track import tracked
from tasks.watch import watch


@stage("evaluate", "evaluations", version=work.VERSION)
def evaluate(
    folder: Path, model: Model, rows: Rows, settings: EvaluateSettings, exclude_seen: bool,
    against: Evaluation | None, runtime: Runtime,
) -> Evaluation:  # fmt: skip
    """Evaluate the exported model on rows that are not in its lineage, and write the report."""
    key = digest_of(model, rows, settings, exclude_seen, against)
    params = {"evaluate": settings, "learn": read_card(model.folder).config.get("learn", {})}
    with tracked("evaluate", f"evaluate on {rows.name}", key, runtime, params) as run:
        run.dataset(rows, "test")
        done = work.evaluate(
            model, rows, settings, folder, runtime,
            exclude_seen=exclude_seen, against=against, progress=watch("evaluate"),
        )  # fmt: skip
        run.description(f"Model {model.digest[:10]} on {rows.name}, {done.rows_in_words}. {report.verdict(done)}")
        run.metrics(done.metrics)
        run.artifacts(folder, "evaluation")
    return done.model_copy(update={"run": run.run_id})


@task
def champions_evaluation(model: Model, rows: Rows, name: str, runtime: Runtime) -> Evaluation | None:
    """The champion's evaluation on the same rows, if it is another model and has one. Never cached."""
    champion = lookup.champion(name, runtime)
    if champion is None or champion.digest in ("", model.digest):
        return None
    return work.finished(champion.digest, rows, runtime)
