"""New folders for library stages, each of which fills one."""

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, FinalSettings, LearnSettings
from agepipe.core.artifacts import write_manifest
from agepipe.data.records import Rows
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from agepipe.reports.evaluation import evaluate
from agepipe.search.records import Fold, Trial
from agepipe.search.trial import OnEpoch, trial
from agepipe.training.records import Choice
from agepipe.training.train_final import chosen, train


def fresh(parent: Path) -> Path:
    """An empty folder in `parent`, which is made where it is missing."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(dir=parent))


def tried(
    rows: Rows, learn: LearnSettings, settings: dict[str, Any], setting: int, fold: Fold, runtime: Runtime,
    on_epoch: OnEpoch | None = None, **options: Any,
) -> Trial:  # fmt: skip
    """A trial in a new folder of the workspace, as a search names it; `options` are those of `trial`."""
    folder = fresh(runtime.workspace / "trials")
    done = trial(rows, changed(learn, settings, "search.grid"), fold, folder, runtime, on_epoch, **options)
    return done.model_copy(update={"setting": setting, "settings": settings})


def train_final(rows: Rows, learn: LearnSettings, choice: Choice, final: FinalSettings, runtime: Runtime) -> Model:
    """The last training after a search, in a new folder of the workspace."""
    return train(rows, chosen(learn, choice, final), choice, final, fresh(runtime.workspace / "models"), runtime)


def evaluated(model: Model, rows: Rows, settings: EvaluateSettings, runtime: Runtime, **options: Any) -> Evaluation:
    """A finished evaluation in a new folder of the workspace; `options` are those of `evaluate`."""
    done = evaluate(model, rows, settings, fresh(runtime.workspace / "evaluations"), runtime, **options)
    write_manifest(done.folder, "evaluate", settings, {}, {})
    return done
