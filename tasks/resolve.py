"""Tasks that find a model by the name that a user gave, and its test rows."""

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, IngestSettings, LabelSettings
from agepipe.data.records import Rows
from agepipe.model.bundle import read_card
from agepipe.model.records import Model
from agepipe.registry import locked_rows, register
from agepipe.training import warm_start
from tasks.tidy import tidy


@task
def resolve(reference: str, name: str, runtime: Runtime) -> Model:
    """Find the model that an alias, a version, a run or a bundle folder names.

    It is the first task of every flow that takes a model, so that an unusable store fails before any work is done.
    """
    tidy(runtime)
    return register.resolve(reference, runtime, name)


@task
def first_weights(config: Config, runtime: Runtime) -> Config:
    """Replace a registered version in `learn.weights` by the file of its weights."""
    return warm_start.with_files(config, lambda version: register.weights_file(version, runtime))


@task
def test_rows(model: Model, name: str, runtime: Runtime) -> Rows:
    """The locked test rows of a registered model."""
    return locked_rows.test_rows(model, name, runtime)


@task
def title(reference: str, model: Model, name: str, runtime: Runtime) -> str:
    """The title of the model on pages."""
    return register.title(reference, model, runtime, name)


@task
def shared_rows(models: tuple[Model, ...], titles: tuple[str, ...], name: str, anew: bool, runtime: Runtime) -> Rows:
    """The locked test rows that all models share, or with `anew` those of the first model that has some.

    Raises:
        ModelError: their test rows differ, or the workspace has none.
    """
    return locked_rows.shared_rows(models, titles, name, anew, runtime)


def ingest_settings(model: Model) -> IngestSettings:
    """Ingest settings that fit the model's stored size."""
    return IngestSettings(size=read_card(model.folder).size)


def label_settings(model: Model) -> LabelSettings:
    """Label settings with the model's ranges."""
    return LabelSettings(ranges=read_card(model.folder).ranges.names)


def largest(models: tuple[Model, ...]) -> Model:
    """The model with the largest stored size; the pictures of the others are resized from these."""
    return max(models, key=lambda model: read_card(model.folder).size)
