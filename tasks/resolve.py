"""Find a model by whatever name the user gave, and the rows that it was never shown."""

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, IngestSettings, LabelSettings
from agepipe.data.records import Rows
from agepipe.model.bundle import read_card
from agepipe.model.records import Model
from agepipe.registry import locked_rows, lookup
from agepipe.training import warm_start
from tasks.tidy import tidy


@task
def resolve(reference: str, name: str, runtime: Runtime) -> Model:
    """The model that an alias, a version, a run or a bundle folder names; the first task of every flow that takes one.

    A store that cannot be used is refused here, before anything is computed or removed.
    """
    tidy(runtime)
    return lookup.resolve(reference, runtime, name)


@task
def first_weights(config: Config, runtime: Runtime) -> Config:
    """The settings with the file of its weights in the place of a registered version to start from."""
    return warm_start.with_files(config, lambda version: lookup.weights_file(version, runtime))


@task
def test_rows(model: Model, name: str, runtime: Runtime) -> Rows:
    """The rows that were locked away before this registered model was trained."""
    return locked_rows.test_rows(model, name, runtime)


@task
def title(reference: str, model: Model, name: str, runtime: Runtime) -> str:
    """What a reader calls the model."""
    return lookup.title(reference, model, runtime, name)


@task
def shared_rows(models: tuple[Model, ...], titles: tuple[str, ...], name: str, anew: bool, runtime: Runtime) -> Rows:
    """The locked test rows that all models have in common, or with `anew` the first ones that any of them has.

    Raises:
        ModelError: they have not the same, or no rows at all are here.
    """
    return locked_rows.shared_rows(models, titles, name, anew, runtime)


def ingest_settings(model: Model) -> IngestSettings:
    """How photographs must be stored for this model."""
    return IngestSettings(size=read_card(model.folder).size)


def label_settings(model: Model) -> LabelSettings:
    """The model's own ranges."""
    return LabelSettings(ranges=read_card(model.folder).ranges.names)


def largest(models: tuple[Model, ...]) -> Model:
    """The model that takes the largest pictures: those of the others are made of them."""
    return max(models, key=lambda model: read_card(model.folder).size)
