"""Convert values to the form that MLflow stores: flat names and short texts."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from pydantic import BaseModel

from agepipe.data.records import Rows

VALUE_LENGTH = 6000
"""Maximum length of an MLflow parameter value."""
TAG_LENGTH = 8000
"""Maximum length of an MLflow tag value."""
DIGEST_LENGTH = 32
"""Length of the digest of a data set; MLflow's maximum is 36."""

_TYPES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"Boolean"}), "boolean"),
    (frozenset({"Int8", "Int16", "Int32", "UInt8", "UInt16"}), "integer"),
    (frozenset({"Int64", "UInt32", "UInt64"}), "long"),
    (frozenset({"Float32"}), "float"),
    (frozenset({"Float64"}), "double"),
    (frozenset({"Binary"}), "binary"),
)


def flat(values: Mapping[str, Any]) -> dict[str, str]:
    """Flatten nested mappings and settings to dotted names with texts; an empty mapping becomes `{}`."""
    return {name: short(value, VALUE_LENGTH) for name, value in _leaves(values, "")}


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if isinstance(plain, Mapping) and plain:
            yield from _leaves(plain, f"{prefix}{name}.")
        else:
            yield prefix + name, plain


def short(value: object, length: int = TAG_LENGTH) -> str:
    """The value as text, truncated to the length with an ellipsis."""
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def described(rows: Rows) -> dict[str, str]:
    """Name, digest, source, schema and profile of labelled rows, for MLflow's data set inputs.

    The digest is that of the rows, because MLflow's own covers neither the order of rows nor the pictures.
    """
    columns = [
        {"name": name, "type": _type(kind), "required": False}
        for name, kind in pl.read_parquet_schema(rows.table).items()
    ]
    return {
        "name": rows.name or rows.table.stem,
        "digest": rows.digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": f"{rows.table.parent.name}/{rows.table.name}"}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": rows.count, "classes": len(rows.ranges), "digest": rows.digest}),
    }


def _type(kind: pl.DataType) -> str:
    return next((name for known, name in _TYPES if str(kind) in known), "string")
