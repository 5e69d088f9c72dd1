"""Find a model by whatever name the user gave, and the rows that it was never shown."""

from prefect import task

from agepipe import registry
from agepipe.config import IngestSettings, LabelSettings, Where
from agepipe.errors import ModelError
from agepipe.records import Model, Rows
from agepipe.serve.bundle import read_card


@task
def resolve(reference: str, name: str, where: Where) -> Model:
    """The model that an alias, a version, a run or a bundle folder names."""
    return registry.resolve(reference, where, name)


@task
def test_rows(model: Model, name: str, where: Where) -> Rows:
    """The rows that were locked away before this registered model was trained."""
    partition = registry.partition_of(model, name, where)
    if partition is None or not partition.test.intact():
        raise ModelError(
            f"model: the locked test rows of {model.digest[:10]} are not in {where.workspace}; "
            "run the pipeline again on its photographs, or name photographs with --data."
        )
    return partition.test


def ingest_settings(model: Model) -> IngestSettings:
    """How photographs must be stored for this model."""
    return IngestSettings(size=read_card(model.folder).size)


def label_settings(model: Model) -> LabelSettings:
    """The model's own ranges."""
    return LabelSettings(ranges=read_card(model.folder).ranges.names)
