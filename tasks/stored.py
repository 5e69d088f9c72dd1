"""Storage of stage records for Prefect, which reads back nothing but plain JSON of agepipe's own records.

A result that Prefect stores names its own serializer, and Prefect unpickles, imports or calls what is named there. In a
shared workspace, anyone who can write could thus run code in another user's command.
"""

import json
from pathlib import Path
from typing import Any, Self, cast

from prefect.filesystems import LocalFileSystem
from prefect.serializers import JSONSerializer

from agepipe.config.runtime import Runtime, cache_of
from agepipe.core.record import Record
from agepipe.data.records import Catalogue, DataReport, Partition, Rows, Source
from agepipe.evaluation.records import Compared, Evaluation
from agepipe.model.records import Model
from agepipe.registry.records import Registered
from agepipe.search.records import Trial
from agepipe.serving.records import Part
from agepipe.training.records import Choice

RECORDS: tuple[type[Record], ...] = (
    Source, Catalogue, DataReport, Rows, Partition, Trial, Choice, Model, Evaluation, Compared, Registered,
    Part,
)  # fmt: skip
"""The classes that may be read."""
FOLDER = "records"
"""Folder in the workspace that holds them."""
FORMER = "agepipe.records"
"""The module of all records in earlier versions, whose workspaces are still read."""
FORMAT = JSONSerializer().model_dump()
"""The serializer that the metadata of a result must name."""
CLASS, ERROR = "__class__", "__exc_type__"
"""The two keys at which Prefect's decoder constructs an object."""


class RecordStorage(LocalFileSystem):
    """A folder of records; anything else raises ValueError, as a missing file does."""

    _block_type_name = "agepipe records"
    _block_type_slug = "agepipe-records"  # otherwise it would replace Prefect's own LocalFileSystem

    bucket: str = ""
    """URI of the workspace, whose folder may have another path on a Dask worker; empty if all have the same path."""

    @classmethod
    def of(cls, runtime: Runtime) -> Self:
        """The records in a workspace."""
        return cls(basepath=str(runtime.workspace / FOLDER), bucket=runtime.bucket if runtime.scheduler else "")

    def _resolve_path(self, path: str) -> Path:
        """As the base class, with the path that the folder has on the machine that reads or writes."""
        here = {"basepath": str(cache_of(self.bucket) / FOLDER)} if self.bucket else {}
        return LocalFileSystem._resolve_path(self.model_copy(update=here), path)

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
    """Parse, check and serialize a result again, so that readers see exactly what was checked.

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
