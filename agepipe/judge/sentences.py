"""What an evaluation found, in plain sentences, and figures as they are read."""

import polars as pl

from agepipe.config import LOWER_IS_BETTER
from agepipe.judge.calibration import BINS, by_chance
from agepipe.judge.coverage import no_sets
from agepipe.judge.intervals import Difference
from agepipe.judge.outcome import Outcome

PLAIN = frozenset({"mae", "loss", "set_size"})
"""Figures that are no shares."""
WORST = 4
"""Slices that the sentence about them names."""


def figure(value: float, name: str) -> str:
    """A figure as it is read: shares in percent, years and nats as they are."""
    return f"{value:.2f}" if name in PLAIN else f"{value:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def span(interval: tuple[float, float], name: str) -> str:
    """An interval as it is read, the unit given once."""
    low, high = (figure(value, name).replace("-", "−") for value in interval)
    return f"{low.removesuffix(chr(0xA0) + '%')} to {high}"


def gap(value: float, name: str) -> str:
    """A difference as it is read, with its sign: that of shares in points of a hundred."""
    return (f"{value:+.2f}" if name in PLAIN else f"{100 * value:+.1f}").replace("-", "−")


def gap_span(interval: tuple[float, float], name: str) -> str:
    """The interval of a difference as it is read."""
    return " to ".join(gap(value, name) for value in interval)


def verdict(outcome: Outcome) -> str:
    """What a person wants to know, in one plain sentence."""
    found = outcome.figures
    constant = {name: best(outcome, name) for name in ("accuracy", "within_one", "mae", "macro_recall")}
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
        f"({constant['accuracy']:.0%}, {constant['within_one']:.0%}, {constant['mae']:.1f} years at best)."
    )


def best(outcome: Outcome, name: str) -> float:
    """What the better one of the two constant answers reaches."""
    values = [one[name] for one in outcome.baselines.values()]
    return min(values) if name in LOWER_IS_BETTER else max(values)


def against(outcome: Outcome) -> str:
    """How the model stands against the champion, in one sentence; empty where there is nothing to compare."""
    if outcome.champion is None:
        return ""
    found = outcome.champion.differences
    told = [_told(name, words, found[name]) for name, words in (("accuracy", "right ranges"), ("mae", "age error"))]
    return f"Against the champion on the same rows: {told[0]}; {told[1]}."


def _told(name: str, words: str, found: Difference) -> str:
    unit = " years" if name in PLAIN else " points"
    figures = f"{gap(found.difference, name)}{unit}, {gap_span((found.low, found.high), name)}"
    if not told_apart(found):
        return f"in {words} the two cannot be told apart ({figures})"
    return f"{side(found.difference, name)} in {words} ({figures})"


def told_apart(found: Difference) -> bool:
    """Whether the interval of a difference leaves out 0."""
    return found.low > 0 or found.high < 0


def side(difference: float, name: str) -> str:
    """Whether a difference in a figure is for the `better` or the `worse`."""
    return "better" if (difference < 0) == (name in LOWER_IS_BETTER) else "worse"


def calibration(outcome: Outcome) -> str:
    """Whether the probabilities mean what they say, and what the temperature did."""
    found, intervals, temperature = outcome.figures, outcome.intervals, outcome.card.temperature
    now = f"{figure(found['ece'], 'ece')} ({span(intervals['ece'], 'ece')})"
    if temperature == 1.0:
        return f"The model carries no temperature (it is 1): its probabilities are the network's own and err by {now}."
    before = f"{figure(found['ece_before'], 'ece')} ({span(intervals['ece_before'], 'ece')})"
    way = "tones down" if temperature > 1 else "sharpens"
    return (
        f"The temperature of {temperature:.3g}, fitted on rows that are no test rows, {way} what the network says: the "
        f"calibration error is {before} before and {now} after it."
    )


def bias(outcome: Outcome) -> str:
    """What must stand beside every calibration error."""
    return (
        "This error is biased upward: by chance alone a perfectly calibrated model that is as sure would show "
        f"{figure(by_chance(outcome.judged.confidence), 'ece')} on as many rows. It is that of the answered range, in "
        f"{BINS} bins of equal width."
    )


def prediction_sets(outcome: Outcome) -> str:
    """How well the sets keep their promise, or why there are none."""
    if outcome.sets is None:
        return no_sets(outcome.card, outcome.settings.level)
    found, intervals = outcome.figures, outcome.intervals
    low, high = intervals["coverage"]
    level = outcome.sets.level / 100
    covered, size = (span(intervals[name], name) for name in ("coverage", "set_size"))
    kept = "as promised" if low <= level <= high else "more than promised" if low > level else "less than promised"
    return (
        f"Sets of neighbouring ranges at {outcome.sets.level} % hold the true one for "
        f"{figure(found['coverage'], 'coverage')} of the rows ({covered}): {kept}. They name {found['set_size']:.1f} "
        f"ranges on average ({size}), and a single one for {figure(found['single'], 'single')} of the rows."
    )


def worst_slices(outcome: Outcome) -> str:
    """Which slices fare worse than the rest beyond chance, in one sentence."""
    table = outcome.slices
    judged = table.filter("enough")
    worse = behind(judged, 1 - outcome.settings.confidence)
    count = f"Of {len(table)} slices {len(judged)} are large enough to judge"
    if worse.is_empty():
        return f"{count}; none is less accurate than the rest beyond chance."
    more = ", ..." if len(worse) > WORST else ""
    names = ", ".join(f"{kind} {name}" for kind, name in worse.select("kind", "slice").head(WORST).iter_rows())
    are = "is" if len(worse) == 1 else "are"
    return f"{count}; {len(worse)} of these {are} less accurate than the rest beyond chance: {names}{more}."


def behind(table: pl.DataFrame, chance: float) -> pl.DataFrame:
    """The slices that are less accurate than the rest, with a corrected p-value below `chance`."""
    return table.filter((pl.col("accuracy_gap") < 0) & (pl.col("accuracy_p") < chance))
