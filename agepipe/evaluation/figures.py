"""How figures are written: their names, units and formats, the same in every report, page and reason."""

from agepipe.evaluation.comparison import Difference

PLAIN = frozenset({"mae", "loss", "set_size"})
"""Figures that are no shares."""
WORDS = {
    "accuracy": "accuracy", "within_one": "within one range", "macro_recall": "macro recall", "macro_f1": "macro F1",
    "mae": "age error", "loss": "loss",
}  # fmt: skip
"""Figures in a sentence."""
UNITS = dict.fromkeys(WORDS, "points") | {"mae": "years", "loss": "nats"}
"""What a difference is counted in."""


def figure(value: float, name: str) -> str:
    """A figure as it is read: shares in percent, years and nats as they are."""
    return f"{value:.2f}" if name in PLAIN else f"{value:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def span(interval: tuple[float, float], name: str) -> str:
    """An interval as it is read, the unit given once."""
    low, high = (figure(value, name).replace("-", "−") for value in interval)
    return f"{low.removesuffix(chr(0xA0) + '%')} to {high}"


def gap(value: float, name: str) -> str:
    """A difference as it is read, with its sign: that of shares in percentage points."""
    return (f"{value:+.2f}" if name in PLAIN else f"{100 * value:+.1f}").replace("-", "−")


def gap_span(interval: tuple[float, float], name: str) -> str:
    """The interval of a difference as it is read."""
    return " to ".join(gap(value, name) for value in interval)


def change(found: Difference, name: str, confidence: float) -> str:
    """A difference with its unit and its interval, as in `+1.80 years, 95% CI +0.92 to +2.71`."""
    return f"{gap(found.difference, name)} {UNITS[name]}, {ci(found.low, found.high, name, confidence)}"


def ci(low: float, high: float, name: str, confidence: float) -> str:
    """The interval of a difference, with its confidence."""
    return f"{confidence * 100:g}% CI {gap_span((low, high), name)}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
