"""The champion's figures beside a model's, over the very same rows."""

from typing import NamedTuple

import polars as pl

from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import DataError
from agepipe.evaluation.bootstrap import Difference, differences
from agepipe.evaluation.metrics import Judged, checked
from agepipe.evaluation.records import Evaluation
from agepipe.model.bundle import Card


class Champion(NamedTuple):
    """How a model stands against the champion."""

    model: str
    """Digest of the champion."""
    differences: dict[str, Difference]
    """Of each figure, the model less the champion; the champion's own is `second`."""


def stand(
    against: Evaluation, card: Card, table: pl.DataFrame, judged: Judged, settings: EvaluateSettings
) -> Champion | None:
    """Compare with an evaluation of the champion; None where it is of other rows or by other ranges.

    Raises:
        DataError: the evaluation's predictions cannot be read.
    """
    try:
        theirs = pl.read_parquet(against.predictions)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{against.predictions}: not a readable table; evaluate the champion again.") from error
    shares = [name for name in theirs.columns if name.startswith("p") and name[1:].isdecimal()]
    same = theirs["digest"].equals(table["digest"]) and theirs["label"].equals(table["label"])
    if not same or len(shares) != len(card.ranges):
        return None
    columns = (theirs[name].to_numpy() for name in ("label", "age", "years"))
    label, age, years = columns
    other = checked(label, theirs.select(shares).to_numpy(), age, years, against.decoding)
    found = differences(
        table["group"].to_numpy(), judged, other,
        draws=settings.draws, confidence=settings.confidence, seed=settings.seed,
    )  # fmt: skip
    return Champion(against.model, found)
