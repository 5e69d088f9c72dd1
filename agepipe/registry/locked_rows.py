"""The test rows that were set aside before registered models were trained."""

from collections.abc import Sequence

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.data.records import Rows
from agepipe.model.records import Model
from agepipe.registry import lookup


def test_rows(model: Model, name: str, runtime: Runtime) -> Rows:
    """The test rows of the split that a registered model was trained on.

    Raises:
        ModelError: the model is not registered, or the rows are not in this workspace.
    """
    rows = _test_rows(model, name, runtime)
    if rows is None:
        raise ModelError(
            f"model: the locked test rows of {model.digest[:10]} are not in {runtime.workspace}; "
            "run the pipeline again on its photographs, or name photographs with --data."
        )
    return rows


def _test_rows(model: Model, name: str, runtime: Runtime) -> Rows | None:
    """The test rows of a registered model; None if it is not registered, or they are not in this workspace."""
    partition = lookup.partition_of(model, name, runtime)
    if partition is None:
        return None
    runtime.mirror.fetch(partition.test)
    return partition.test if partition.test.intact() else None


def shared_rows(models: Sequence[Model], titles: Sequence[str], name: str, anew: bool, runtime: Runtime) -> Rows:
    """The test rows that all models share, or with `anew` those of the first model that has any in this workspace.

    Raises:
        ModelError: the models have different test rows, or none are in this workspace.
    """
    found = [_test_rows(model, name, runtime) for model in models]
    there = [rows for rows in found if rows is not None]
    if not there:
        raise ModelError(
            f"models: the locked test rows of none of {', '.join(titles)} are in {runtime.workspace}; name photographs "
            "with --data."
        )
    other = [title for title, rows in zip(titles, found, strict=True) if rows is None or rows.digest != there[0].digest]
    if other and not anew:
        raise ModelError(
            f"models: no locked test rows in common ({', '.join(other)} has others, or none); give --anew to evaluate "
            "all on the first one's test rows that none has seen, or name photographs with --data."
        )
    return there[0]
