"""MLflow runs of stages, linked with their Prefect runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run, task_run

from agepipe.config.runtime import Runtime
from agepipe.core.progress import Progress
from agepipe.model.bundle_files import read_curves
from agepipe.model.records import Model
from agepipe.registry import tracking
from agepipe.training.job import EpochEvent
from tasks.context import parent_of


def prefect_tags() -> dict[str, str]:
    """Tags of an MLflow run that name the current Prefect run."""
    known = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_name": flow_run.name,
        "prefect.flow_run_url": flow_run.ui_url,
        "prefect.task_run_id": task_run.id,
    }
    return {name: str(value) for name, value in known.items() if value}


@contextmanager
def tracked(
    kind: tracking.Kind, name: str, key: str, runtime: Runtime, params: Mapping[str, Any] | None = None,
    after: str | None = None,
) -> Iterator[tracking.Run]:  # fmt: skip
    """Open the MLflow run of a piece of work, nested under the pipeline's; continues `after`, or an interrupted one."""
    with tracking.run(
        runtime, kind=kind, name=name, key=key, parent=parent_of(runtime), params=params, tags=prefect_tags(),
        after=after,
    ) as run:  # fmt: skip
        yield run


def epochs(run: tracking.Run, progress: Progress) -> Callable[[EpochEvent], None]:
    """A callback that logs the figures of each epoch and reports progress."""

    def on_epoch(epoch: EpochEvent) -> None:
        run.metrics({**epoch.metrics, "lr": epoch.lr, "epoch_seconds": epoch.seconds}, step=epoch.epoch)
        shown = epoch.metrics.get("validation_macro_recall")
        note = "" if shown is None else f"macro recall {shown:.3f}"
        if epoch.early:
            progress(epoch.epochs, epoch.epochs, f"{note}, stopped early after epoch {epoch.epoch}")
        else:
            progress(epoch.epoch, epoch.epochs, note)

    return on_epoch


def pictures(run: tracking.Run, model: Model) -> None:
    """Log plots of precision, recall and their errors over the epochs, under `curves/` in the run.

    Trials log no plots: MLflow shows their figures, and drawing takes longer than a small trial.
    """
    from agepipe.reports.plots import draw_curves  # slow to import

    with TemporaryDirectory() as folder:
        draw_curves(read_curves(model.folder), model.epochs, Path(folder))
        run.artifacts(Path(folder), "curves")


def name_in_prefect(run_id: str, runtime: Runtime) -> None:
    """Create an artifact on the Prefect run that names the MLflow run."""
    create_markdown_artifact(
        key="mlflow-run",
        markdown=f"MLflow run `{run_id}` in experiment `{runtime.experiment}` of `{runtime.tracking}`.",
        description="The MLflow run that tracks this flow run",
    )
