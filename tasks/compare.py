"""The stage that compares models on rows that none of them has seen."""

from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.records import Compared
from agepipe.model.records import Model
from agepipe.reports import comparison as work
from tasks.stage import stage
from tasks.track import tracked
from tasks.watch import watch


@stage("compare", "comparisons", version=work.VERSION)
def compare(
    folder: Path, models: tuple[Model, ...], titles: tuple[str, ...], rows: Rows, settings: EvaluateSettings,
    runtime: Runtime,
) -> Compared:  # fmt: skip
    """Compare each model with the first, and write the page."""
    key = digest_of(models, titles, rows, settings)
    with tracked("compare", f"compare {' and '.join(titles)}", key, runtime, {"evaluate": settings}) as run:
        run.dataset(rows, "test")
        done = work.compare(models, titles, rows, settings, folder, runtime, watch("compare"))
        found = work.read(done)
        run.metrics(
            {
                f"{title.partition(' (')[0]}.{name}.difference".replace(" ", "-"): change.difference
                for title, one in zip(titles[1:], found.against, strict=True)
                for name, change in one.figures.items()
            }
        )
        run.description(" ".join(work.verdicts(found)))
        run.artifacts(folder, "comparison")
    return done.model_copy(update={"run": run.run_id})
