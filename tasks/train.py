"""The stage that trains the one network that is judged, registered and used."""

from agepipe.config import FinalSettings, LearnSettings, Where
from agepipe.learn import final as work
from agepipe.learn.runs import weights_digest
from agepipe.records import Choice, Model, Rows, digest_of
from agepipe.settings import changed
from tasks.stage import stage
from tasks.track import epochs, pictures, tracked
from tasks.watch import watch


def train(rows: Rows, learn: LearnSettings, choice: Choice, settings: FinalSettings, where: Where) -> Model:
    """Train with the chosen setting; a file of first weights counts by its content, not by its name."""
    return _train(rows, learn, choice, settings, weights_digest(changed(learn, choice.settings)), where)


@stage("train", version=2)
def _train(
    rows: Rows, learn: LearnSettings, choice: Choice, settings: FinalSettings, weights: str, where: Where
) -> Model:
    """Train with the chosen setting, stop early, keep the best epoch and export it."""
    key = digest_of(rows, learn, choice, settings, weights)
    params = {"learn": changed(learn, {**choice.settings, "epochs": settings.epochs}), "final": settings}
    with tracked("train", "train", key, where, params) as run:
        run.dataset(rows, "training")
        model = work.train(rows, learn, choice, settings, where, epochs(run, watch("train")))
        run.metrics({**model.metrics, "best_epoch": model.epochs, "seconds": model.seconds})
        run.artifacts(model.folder, "bundle")
        pictures(run, model)
    return model.model_copy(update={"run": run.run_id})
