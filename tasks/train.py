"""The stage that trains the one network that is judged, registered and used."""

from agepipe.config.base import changed
from agepipe.config.runtime import Where
from agepipe.config.stages import FinalSettings, LearnSettings
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.model.records import Model
from agepipe.training import train_final as work
from agepipe.training.records import Choice
from agepipe.training.workdir import weights_digest
from tasks.old_stage import stage
from tasks.track import epochs, pictures, tracked
from tasks.watch import watch


def train(rows: Rows, learn: LearnSettings, choice: Choice, settings: FinalSettings, where: Where) -> Model:
    """Train with the chosen setting; a file of first weights counts by its content too, so that a new one is seen."""
    return _train(rows, learn, choice, settings, weights_digest(changed(learn, choice.settings)), where)


@stage("train", version=5)
def _train(
    rows: Rows, learn: LearnSettings, choice: Choice, settings: FinalSettings, weights: str, where: Where
) -> Model:
    """Train with the chosen setting, stop early, keep the best epoch and export it."""
    key = digest_of(rows, learn, choice, settings, weights)
    chosen = changed(learn, {**choice.settings, "epochs": settings.epochs})
    with tracked("train", "train", key, where, {"learn": chosen, "final": settings}) as run:
        run.dataset(rows, "training")
        model = work.train(rows, learn, choice, settings, where, epochs(run, watch("train")))
        run.description(_described(chosen, model, rows, settings))
        run.metrics({**model.metrics, "best_epoch": model.epochs, "seconds": model.seconds})
        run.artifacts(model.folder, "bundle")
        pictures(run, model)
    return model.model_copy(update={"run": run.run_id})


def _described(learn: LearnSettings, model: Model, rows: Rows, settings: FinalSettings) -> str:
    judged = "all development rows" if settings.refit else f"all but {settings.validation:.0%} of the development rows"
    weights = "random" if learn.weights == "none" else learn.weights
    return (
        f"{learn.network} at {learn.size} px, from {weights} weights, trained on {judged} of {rows.name}; epoch "
        f"{model.epochs} of at most {settings.epochs} was kept."
    )
