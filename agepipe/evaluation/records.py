"""Records of an evaluation and of a comparison."""

from pathlib import Path
from typing import Literal

from agepipe.core.record import Made
from agepipe.model.decoding import Decoding


class Evaluation(Made):
    """What a model does on rows that it has not seen; the digest is over model, rows and settings."""

    model: str
    """Digest of the model."""
    rows: str
    """Digest of the rows it was judged on."""
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
    """How one range was answered from the probabilities."""
    lineage: Literal["known", "unknown"] = "known"
    """Whether it is known what the model has seen; otherwise every figure may be too good."""
    verdict: str = ""
    """The main figures in plain words, each beside that of the best constant guess."""
    warning: str = ""
    """In what the model is not better than a constant guess; empty where it is better in every main figure."""

    @property
    def judged_on(self) -> str:
        """The photographs in words, with what they were to the model."""
        if self.lineage == "unknown":
            return f"{self.count:,} photographs, which the model may have seen: what it was trained on is unknown"
        return f"{self.count:,} unseen photographs"

    @property
    def doubt(self) -> str:
        """What stands beside every figure of a model of which nobody knows what it has seen; else empty."""
        return " (may be too good)" if self.lineage == "unknown" else ""

    @property
    def report(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "report.html"

    @property
    def model_card(self) -> Path:
        """Markdown: what the model is for, how good it is, and for whom it is worse."""
        return self.folder / "model-card.md"

    @property
    def predictions(self) -> Path:
        """Parquet: `digest`, `group`, `age`, `label`, `predicted`, `years`, and `p0`... one column a class.

        Where there were prediction sets, `low` and `high`, their first and last class; where the rows had them,
        `gender`, `race`, `width`, `height`, `brightness`, `sharpness`.
        """
        return self.folder / "predictions.parquet"


class Compared(Made):
    """Several models on the same rows, each against the first; the digest is over models, rows and settings."""

    @property
    def page(self) -> Path:
        """One HTML file that opens from disk."""
        return self.folder / "comparison.html"

    @property
    def facts(self) -> Path:
        """All that was found, as JSON; `agepipe.reports.comparison.read` reads it."""
        return self.folder / "comparison.json"
