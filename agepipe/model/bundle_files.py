"""Write the card of a bundle, and read and write its tables.

Only training and evaluation need this module, so a registered version does not contain it.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from agepipe.core.artifacts import replacing
from agepipe.core.errors import ModelError, first_line
from agepipe.model.bundle import CARD, CURVES, LINEAGE, Card, read_card

Role = Literal["fitted", "chosen", "calibrated"]
"""What the model used a photograph for: fitting weights, choosing an epoch or setting, or calibrating probabilities."""

LINEAGE_SCHEMA: dict[str, type[pl.DataType]] = {"digest": pl.String, "look": pl.Binary, "role": pl.String}


def write_card(folder: Path, card: Card) -> Path:
    """Write the card atomically; returns its path."""
    path = folder / CARD
    with replacing(path) as draft:
        draft.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def read_lineage(folder: Path) -> pl.DataFrame:
    """The photographs that the model has seen: `digest`, `look`, `role`; no rows when the lineage is unknown.

    Raises:
        ModelError: the table is missing although the card says that the lineage is known, or it cannot be read.
    """
    path = folder / LINEAGE
    if not path.exists() and read_card(folder).lineage == "unknown":
        return pl.DataFrame(schema=LINEAGE_SCHEMA)
    return _table(path, tuple(LINEAGE_SCHEMA))


def write_lineage(folder: Path, table: pl.DataFrame) -> Path:
    """Write the lineage atomically; returns its path."""
    path = folder / LINEAGE
    with replacing(path) as draft:
        table.select(pl.col(name).cast(kind) for name, kind in LINEAGE_SCHEMA.items()).write_parquet(draft)
    return path


def read_curves(folder: Path) -> pl.DataFrame:
    """The training curves, one row an epoch; no rows for an imported network.

    Raises:
        ModelError: the table cannot be read.
    """
    path = folder / CURVES
    return _table(path, ("epoch",)) if path.exists() else pl.DataFrame(schema={"epoch": pl.Int64})


def _table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ModelError(f"{path}: not a readable Parquet table ({first_line(error)}); export again.") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ModelError(f"{path}: the columns {', '.join(missing)} are missing; export the model again.")
    return table
