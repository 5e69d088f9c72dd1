"""Names, units and formats of figures, the same in every report, page and reason."""

from agepipe.evaluation.comparison import Difference

PLAIN = frozenset({"mae", "loss", "set_size"})
"""Figures that are not shares."""
WORDS = {
    "accuracy": "accuracy", "within_one": "within one range", "macro_recall": "macro recall", "macro_f1": "macro F1",
    "mae": "age error", "loss": "loss",
}  # fmt: skip
"""Names of figures in a sentence."""
UNITS = dict.fromkeys(WORDS, "points") | {"mae": "years", "loss": "nats"}
"""Units of differences."""


def figure(value: float, name: str) -> str:
    """A figure as text: shares in percent, years and nats unchanged."""
    return f"{value:.2f}" if name in PLAIN else percent(value)


def percent(share: float, form: str = ".1f") -> str:
    """A share between 0 and 1 as text, such as `46.2 %` with a no-break space; `form` formats the number."""
    return f"{100 * share:{form}}\N{NO-BREAK SPACE}%"


def span(interval: tuple[float, float], name: str) -> str:
    """An interval as text, with the unit once."""
    low, high = (figure(value, name).replace("-", "−") for value in interval)
    return f"{low.removesuffix(chr(0xA0) + '%')} to {high}"


def gap(value: float, name: str) -> str:
    """A difference as text, with its sign; differences of shares in percentage points."""
    return (f"{value:+.2f}" if name in PLAIN else f"{100 * value:+.1f}").replace("-", "−")


def gap_span(interval: tuple[float, float], name: str) -> str:
    """The interval of a difference as text."""
    return " to ".join(gap(value, name) for value in interval)


def change(found: Difference, name: str, confidence: float) -> str:
    """A difference with its unit and its interval, as in `+1.80 years, 95 % CI +0.92 to +2.71`."""
    return f"{gap(found.difference, name)} {UNITS[name]}, {ci(found.low, found.high, name, confidence)}"


def ci(low: float, high: float, name: str, confidence: float) -> str:
    """The interval of a difference, with its confidence."""
    return f"{percent(confidence, 'g')} CI {gap_span((low, high), name)}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
