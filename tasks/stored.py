"""Where the stages' records are stored: only plain JSON of a record of ours is read back.

A result that Prefect keeps names its own format, and Prefect unpickles, imports or calls what it names. The workspace
may be shared, so whoever can write there could have a command of ours run anything.
"""

import json
from typing import Any, cast

from prefect.filesystems import LocalFileSystem
from prefect.serializers import JSONSerializer

from agepipe.core.record import Record
from agepipe.data.records import Catalogue, DataReport, Partition, Rows, Source
from agepipe.evaluation.records import Compared, Evaluation
from agepipe.model.records import Model
from agepipe.registry.records import Registered
from agepipe.search.records import Trial
from agepipe.training.records import Choice

RECORDS: tuple[type[Record], ...] = (
    Source, Catalogue, DataReport, Rows, Partition, Trial, Choice, Model, Evaluation, Compared, Registered,
)  # fmt: skip
"""The classes that may be read back."""
FORMER = "agepipe.records"
"""The module of all of them before each package had its own; workspaces of that time are still read."""
FORMAT = JSONSerializer().model_dump()
"""What the metadata of a result must say of its format."""
CLASS, ERROR = "__class__", "__exc_type__"
"""The two keys at which Prefect's decoder makes an object."""


class RecordStorage(LocalFileSystem):
    """A folder of records; anything else that lies there is refused with a ValueError, as what is missing is."""

    _block_type_name = "agepipe records"
    _block_type_slug = "agepipe-records"  # else it would take the place of Prefect's own folder storage

    async def aread_path(self, path: str) -> bytes:
        """As `read_path`."""
        return plain(await super().aread_path(path))

    def read_path(self, path: str, **how: Any) -> bytes:  # type: ignore[override]  # as Prefect's own is called
        """The result's bytes.

        Raises:
            ValueError: there is no such file, or it is not the JSON of one record.
        """
        return plain(cast(bytes, super().read_path(path, **how)))


def plain(content: bytes) -> bytes:
    """The same result, written anew so that every reader sees what was checked here.

    Raises:
        ValueError: it is not the JSON of one record.
    """
    made: list[dict[str, Any]] = []

    def note(found: dict[str, Any]) -> dict[str, Any]:
        if CLASS in found or ERROR in found:
            made.append(found)
        return found

    try:
        whole = json.loads(content)
        metadata, result = whole["metadata"], json.loads(whole["result"], object_hook=note)
        fits = metadata["serializer"] == FORMAT and set(whole) == {"metadata", "result"}
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a result that a stage stored") from error
    if not fits or made != [result] or set(result) != {CLASS, "data"}:
        raise ValueError("not the record of a stage")
    result[CLASS] = class_name(result[CLASS])
    return json.dumps({"metadata": metadata, "result": json.dumps(result)}).encode()


def class_name(name: object) -> str:
    """The full name of the record class that a stored name stands for.

    Raises:
        ValueError: it is none of `RECORDS`.
    """
    module, _, kind = str(name).rpartition(".")
    for record in RECORDS:
        if record.__name__ == kind and module in (record.__module__, FORMER):
            return f"{record.__module__}.{kind}"
    raise ValueError("not the record of a stage")
