"""All that was found out about a model on rows, before it is drawn and written."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config import EvaluateSettings
from agepipe.judge.intervals import bootstrap
from agepipe.judge.lineage import Overlap
from agepipe.judge.metrics import Judged, by_range, confusion, figures
from agepipe.records import Model, Rows
from agepipe.serve.bundle import Card


@dataclass(frozen=True)
class Subject:
    """A model, the rows it is to be judged on, and which of them it has seen."""

    model: Model
    card: Card
    rows: Rows
    table: pl.DataFrame
    """One row a photograph to be judged; in an `Outcome`, with `label` by the model's ranges."""
    lineage: pl.DataFrame
    overlap: Overlap


@dataclass(frozen=True)
class Outcome(Subject):
    """What the report shows and `metrics.json` holds."""

    settings: EvaluateSettings
    judged: Judged
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    baseline: dict[str, float]
    """The figures of the best constant answer: the commonest range and the median age of these very rows."""
    ranges: pl.DataFrame
    confusion: NDArray[np.int64]
    curves: pl.DataFrame
    outside: int
    """Rows left out because the model has no range for their age."""
    seconds: float
    notes: tuple[str, ...]

    @property
    def unknown(self) -> bool:
        """Whether nobody knows what the model has seen."""
        return "unknown" in (self.model.lineage, self.card.lineage)

    @property
    def groups(self) -> int:
        """Different photographs among the rows, copies counted once."""
        return self.table["group"].n_unique()

    @property
    def roles(self) -> dict[str, int]:
        """Photographs in the model's lineage by role."""
        counts = self.lineage.group_by("role").len().sort("role")
        return {str(role): int(count) for role, count in counts.iter_rows()}

    def summary(self) -> dict[str, Any]:
        """Everything that is a number or a name, as JSON values."""
        return {
            "model": self.model.digest,
            "rows": self.rows.digest,
            "count": len(self.judged.labels),
            "photographs": self.groups,
            "excluded": self.overlap.count,
            "outside": self.outside,
            "metrics": self.figures | {"seconds": self.seconds},
            "intervals": self.intervals,
            "confidence": self.settings.confidence,
            "baseline": self.baseline,
            "ranges": self.card.ranges.names,
            "lineage": {
                "status": "unknown" if self.unknown else "known",
                "roles": self.roles,
                "seen_by_content": self.overlap.by_content,
                "seen_by_appearance": self.overlap.by_appearance,
            },
            "notes": self.notes,
        }


def baseline(judged: Judged) -> dict[str, float]:
    """The figures of the best constant answer: every row gets the rows' own class shares and median age."""
    count, classes = judged.probabilities.shape
    shares = np.bincount(judged.labels, minlength=classes) / count
    years = np.full(count, np.median(judged.ages))
    return dict(figures(judged.labels, np.tile(shares, (count, 1)), judged.ages, years))


def numbers(judged: Judged, groups: pl.Series, names: tuple[str, ...], settings: EvaluateSettings) -> dict[str, Any]:
    """The fields of an `Outcome` that are computed from what was predicted, by name."""
    return {
        "figures": dict(figures(*judged)),
        "intervals": bootstrap(
            groups.to_numpy(), judged, draws=settings.draws, confidence=settings.confidence, seed=settings.seed
        ),
        "baseline": baseline(judged),
        "ranges": by_range(names, *judged),
        "confusion": confusion(judged.labels, judged.predicted, len(names)),
    }
