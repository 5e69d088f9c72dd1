"""The result of an evaluation, before the report is written."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.stages import EvaluateSettings
from agepipe.core.record import digest_of
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import Difference
from agepipe.evaluation.coverage import Sets
from agepipe.evaluation.metrics import Predictions
from agepipe.model.bundle import Card
from agepipe.model.bundle_files import Role
from agepipe.model.calibration import Reliability
from agepipe.model.lineage import Overlap
from agepipe.model.records import Model


@dataclass(frozen=True)
class Subject:
    """A model, the rows to evaluate it on, and which of them it has seen."""

    model: Model
    card: Card
    rows: Rows
    table: pl.DataFrame
    """One row per photograph to evaluate; in an `Outcome`, with `label` by the model's ranges."""
    lineage: pl.DataFrame
    overlap: Overlap


class Champion(NamedTuple):
    """The comparison of a model with the champion."""

    model: str
    """Digest of the champion."""
    differences: dict[str, Difference]
    """For each figure, the model minus the champion; the champion's figure is `second`."""


@dataclass(frozen=True)
class Outcome(Subject):
    """Everything that the report and `metrics.json` contain."""

    settings: EvaluateSettings
    predictions: Predictions
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    constants: dict[str, Difference]
    """The model minus the best constant guess in each figure of `agepipe.evaluation.constant.COMPARED`."""
    baselines: dict[str, dict[str, float]]
    """The figures of two constant predictions derived from these rows: `majority` and `median`."""
    champion: Champion | None
    ranges: pl.DataFrame
    confusion: NDArray[np.int64]
    before: Reliability
    """Of the probabilities before temperature scaling."""
    after: Reliability
    sets: Sets | None
    """At `settings.level`; None if the model has no threshold for it."""
    slices: pl.DataFrame
    """`agepipe.evaluation.slice_table.SCHEMA`."""
    doubtful: pl.DataFrame
    """Rows whose label is worth checking (`agepipe.evaluation.mistakes.label_errors`)."""
    curves: pl.DataFrame
    outside: int
    """Rows left out because the model has no range for their age."""
    seconds: float
    notes: tuple[str, ...]

    @property
    def unknown(self) -> bool:
        """Whether the lineage of the model is unknown."""
        return "unknown" in (self.model.lineage, self.card.lineage)

    @property
    def groups(self) -> int:
        """Different photographs among the rows, copies counted once."""
        return self.table["group"].n_unique()

    @property
    def few(self) -> bool:
        """Whether there are fewer photographs than `settings.min_slice`, too few for any comparison."""
        return self.groups < self.settings.min_slice

    @property
    def roles(self) -> dict[str, int]:
        """Photographs in the model's lineage by role."""
        return {role: len(digests) for role, digests in self._by_role()}

    @property
    def role_digests(self) -> dict[str, str]:
        """A digest by role, over the content digests of the photographs that had it, in any order."""
        return {role: digest_of(sorted(digests)) for role, digests in self._by_role()}

    def _by_role(self) -> list[tuple[str, list[str]]]:
        found = dict(self.lineage.group_by("role").agg("digest").iter_rows())
        return [(role, found[role]) for role in get_args(Role) if role in found]

    def summary(self) -> dict[str, Any]:
        """Everything that is a number or a name, as JSON values."""
        return {
            "model": self.model.digest,
            "rows": self.rows.digest,
            "count": len(self.predictions.labels),
            "photographs": self.groups,
            "excluded": self.overlap.count,
            "outside": self.outside,
            "decoding": self.card.decoding,
            "temperature": self.card.temperature,
            "metrics": self.figures | {"seconds": self.seconds},
            "intervals": self.intervals,
            "confidence": self.settings.confidence,
            "constants": {name: one._asdict() for name, one in self.constants.items()},
            "baselines": self.baselines,
            "champion": self._champion(),
            "ranges": self.card.ranges.names,
            "sets": None if self.sets is None else {"level": self.sets.level},
            "slices": self._slices(),
            "label_errors": len(self.doubtful),
            "lineage": {
                "status": "unknown" if self.unknown else "known",
                "roles": self.roles,
                "digests": self.role_digests,
                "fitted_on": self.card.rows,
                "seen_by_content": self.overlap.by_content,
                "seen_by_appearance": self.overlap.by_appearance,
            },
            "notes": self.notes,
        }

    def _champion(self) -> dict[str, Any] | None:
        if self.champion is None:
            return None
        found = {name: one._asdict() for name, one in self.champion.differences.items()}
        return {"model": self.champion.model, "differences": found}

    def _slices(self) -> list[dict[str, Any]]:
        """JSON has no NaN."""
        rows = self.slices.iter_rows(named=True)
        return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
