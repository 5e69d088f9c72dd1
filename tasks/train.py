"""The stage that trains the one network that is judged, registered and used."""

from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.config.stages import FinalSettings, LearnSettings
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.model.bundle import read_card
from agepipe.model.records import Model
from agepipe.training import train_final as work
from agepipe.training.records import Choice
from agepipe.training.workdir import weights_digest
from tasks.stage import stage
from tasks.track import epochs, pictures, tracked
from tasks.watch import watch


def train(rows: Rows, learn: LearnSettings, choice: Choice, settings: FinalSettings, runtime: Runtime) -> Model:
    """Train with the chosen setting; another search with the same choice trains nothing again, unless it is a refit."""
    chosen = work.chosen(learn, choice, settings)
    return _train(rows, chosen, choice if settings.refit else None, settings, weights_digest(chosen), runtime)


@stage("train", "models", version=6, resumes=True)
def _train(
    folder: Path, rows: Rows, learn: LearnSettings, choice: Choice | None, settings: FinalSettings, weights: str,
    runtime: Runtime,
) -> Model:  # fmt: skip
    """Train, stop early, keep the best epoch and export it; `weights` says what a file of first weights holds."""
    key = digest_of(rows, learn, choice, settings, weights)
    with tracked("train", "train", key, runtime, {"learn": learn, "final": settings}) as run:
        run.dataset(rows, "training")
        model = work.train(rows, learn, choice, settings, folder, runtime, epochs(run, watch("train")))
        run.description(_described(learn, model, rows, settings))
        run.tags({"agepipe.precision": read_card(model.folder).config["precision"]})
        run.metrics({**model.metrics, "best_epoch": model.epochs, "seconds": model.seconds})
        run.artifacts(folder, "bundle")
        pictures(run, model)
    return model.model_copy(update={"run": run.run_id})


def _described(learn: LearnSettings, model: Model, rows: Rows, settings: FinalSettings) -> str:
    judged = "all development rows" if settings.refit else f"all but {settings.validation:.0%} of the development rows"
    weights = "random" if learn.weights == "none" else learn.weights
    kept = f"epoch {model.epochs} of {settings.count} was kept"
    return f"{learn.network} at {learn.size} px, from {weights} weights, trained on {judged} of {rows.name}; {kept}."
