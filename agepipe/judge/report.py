"""One HTML file about an evaluation: opens from disk, asks nothing of the network, prints, light and dark."""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agepipe import __version__
from agepipe.judge.outcome import Outcome
from agepipe.records import Evaluation

TITLES = {
    "accuracy": "right range",
    "within_one": "within one range",
    "macro_recall": "recall, mean over ranges",
    "macro_precision": "precision, mean over ranges",
    "macro_f1": "F1, mean over ranges",
    "weighted_recall": "recall, weighted by rows",
    "weighted_precision": "precision, weighted by rows",
    "weighted_f1": "F1, weighted by rows",
    "mae": "age error, years",
    "loss": "loss, nats",
}
"""What each figure is called on the page, in the order shown."""


def render(outcome: Outcome, drawings: Mapping[str, str]) -> str:
    """The page.

    Args:
        outcome: what was found.
        drawings: SVG by name, as `agepipe.judge.plots.draw` gives them; the only text that is not escaped.
    """
    environment = Environment(
        loader=PackageLoader("agepipe.judge"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": figure, "span": span}
    page = environment.get_template("report.html.j2")
    drawn = {name: Markup(svg) for name, svg in drawings.items()}
    return page.render(o=outcome, drawings=drawn, titles=TITLES, verdict=verdict(outcome), version=__version__)


def figure(value: float, name: str) -> str:
    """A figure as it is read: shares in percent, years and nats as they are."""
    return f"{value:.2f}" if name in ("mae", "loss") else f"{value:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def span(interval: tuple[float, float], name: str) -> str:
    """An interval as it is read, the unit given once."""
    low, high = (figure(value, name) for value in interval)
    return f"{low.removesuffix(chr(0xA0) + '%')} to {high}"


def verdict(outcome: Outcome) -> str:
    """What a person wants to know, in one plain sentence."""
    found, constant = outcome.figures, outcome.baseline
    low = outcome.intervals["macro_recall"][0]
    standing = (
        "far above a constant answer"
        if low > 2 * constant["macro_recall"]
        else "above a constant answer"
        if low > constant["macro_recall"]
        else "not to be told from a constant answer"
    )
    return (
        f"Names the right one of {len(outcome.card.ranges)} ranges for {found['accuracy']:.0%} of "
        f"{len(outcome.judged.labels):,} photographs{'' if outcome.unknown else ' that it has never seen'}, is at most "
        f"one range off for {found['within_one']:.0%}, and errs by {found['mae']:.1f} years on average: {standing} "
        f"({constant['accuracy']:.0%}, {constant['within_one']:.0%}, {constant['mae']:.1f} years)."
    )


def markdown(evaluation: Evaluation) -> str:
    """The figures with their intervals as a Markdown table, and where the page is."""
    lines = [
        f"| {title} | {figure(evaluation.metrics[name], name)} | {span(evaluation.intervals[name], name)} |"
        for name, title in TITLES.items()
    ]
    head = f"{evaluation.count:,} rows that the model has not seen. Report: `{evaluation.report}`"
    return "\n".join([head, "", "| figure | value | interval |", "|---|---|---|", *lines])
