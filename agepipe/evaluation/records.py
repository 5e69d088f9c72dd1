"""Records of an evaluation and of a comparison."""

from pathlib import Path
from typing import Literal

from agepipe.core.record import Made
from agepipe.model.decoding import Decoding


class Evaluation(Made):
    """An evaluation of a model on rows that it has not seen; the digest is over model, rows and settings."""

    model: str
    """Digest of the model."""
    rows: str
    """Digest of the evaluated rows."""
    count: int
    folder: Path
    """`metrics.json`, `predictions.parquet`, `label-errors.csv`, `report.html`, tables and plots."""
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confidence: float = 0.95
    """Coverage of the intervals."""
    excluded: int = 0
    """Rows left out because the model had seen them."""
    decoding: Decoding = "likeliest"
    """How the range was chosen from the probabilities."""
    lineage: Literal["known", "unknown"] = "known"
    """Whether the rows that the model has seen are known; otherwise every figure may be too good."""
    verdict: str = ""
    """A sentence with the main figures, each with that of the best constant guess."""
    warning: str = ""
    """A sentence on the figures in which the model is not better than a constant guess; empty if there are none."""

    @property
    def rows_in_words(self) -> str:
        """The evaluated photographs in words, and whether the model has seen them."""
        if self.lineage == "unknown":
            return f"{self.count:,} photographs, which the model may have seen: what it was trained on is unknown"
        return f"{self.count:,} unseen photographs"

    @property
    def doubt(self) -> str:
        """A note for every figure of a model of unknown lineage; else empty."""
        return " (may be too good)" if self.lineage == "unknown" else ""

    @property
    def report(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "report.html"

    @property
    def model_card(self) -> Path:
        """Markdown: intended use, figures, limits and slices."""
        return self.folder / "model-card.md"

    @property
    def predictions(self) -> Path:
        """Parquet: `digest`, `group`, `age`, `label`, `predicted`, `years`, and `p0`... one column per class.

        Where there were prediction sets, `low` and `high`, their first and last class; where the rows had them,
        `gender`, `race`, `width`, `height`, `brightness`, `sharpness`.
        """
        return self.folder / "predictions.parquet"


class Compared(Made):
    """A comparison of models with the first of them on the same rows; the digest is over models, rows and settings."""

    @property
    def page(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "comparison.html"

    @property
    def facts(self) -> Path:
        """All results as JSON; `agepipe.reports.comparison.read` reads it."""
        return self.folder / "comparison.json"
