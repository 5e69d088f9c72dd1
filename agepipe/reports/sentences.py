"""The results of an evaluation in sentences."""

import polars as pl

from agepipe.config.stages import LOWER_IS_BETTER
from agepipe.evaluation.comparison import Difference, significance
from agepipe.evaluation.constant import DECISIVE
from agepipe.evaluation.coverage import no_sets
from agepipe.evaluation.figures import UNITS, WORDS, change, figure, gap, listed, span
from agepipe.evaluation.result import Outcome
from agepipe.evaluation.slice_table import SLICE_FIGURES
from agepipe.model.calibration import BINS, by_chance

MAX_NAMED = 4
"""Maximum number of slices that a sentence names for each figure."""


def verdict(outcome: Outcome) -> str:
    """The main figures, each with that of the best constant guess."""
    found, count = outcome.figures, len(outcome.predictions.labels)
    photographs = f"{count:,}{'' if outcome.unknown else ' unseen'} photograph{'s' if count != 1 else ''}"
    hits, near, years = (figure(best(outcome, name), name) for name in ("accuracy", "within_one", "mae"))
    facts = (
        f"Picks the right one of {len(outcome.card.ranges)} ranges for {figure(found['accuracy'], 'accuracy')} of "
        f"{photographs} (the best constant guess: {hits}), is at most one range off for "
        f"{figure(found['within_one'], 'within_one')} ({near}), and errs by {found['mae']:.2f} years on average "
        f"({years})."
    )
    if warning(outcome):
        return facts
    return f"{facts} Better than a constant guess in {listed([WORDS[name] for name in DECISIVE])}."


def warning(outcome: Outcome) -> str:
    """The figures in which the model is not better than a constant guess; empty if it is better in all of them."""
    if outcome.few:
        least = outcome.settings.min_slice
        return (
            f"{outcome.groups:,} different photographs are too few to tell whether this model is better than a "
            f"constant guess. At least {least} are needed (evaluate.min_slice)."
        )
    better, unclear, worse = (compared_with_constant(outcome, sign) for sign in (1, 0, -1))
    if not unclear and not worse:
        return ""
    kinds = (("worse", worse), ("not significantly better", unclear))
    parts = [f"{kind} in {_changes(outcome, names)}" for kind, names in kinds if names]
    if not better:
        return f"This model is not better than a constant guess: {'; '.join(parts)}."
    good = listed([WORDS[name] for name in better])
    return f"The figures disagree: better than a constant guess in {good}, but {'; '.join(parts)}."


def compared_with_constant(outcome: Outcome, sign: int) -> list[str]:
    """The figures in which the model is significantly better than a constant guess (1), worse (-1), or neither (0)."""
    return [name for name in DECISIVE if significance(outcome.constants[name], name) == sign]


def _changes(outcome: Outcome, names: list[str]) -> str:
    found, confidence = outcome.constants, outcome.settings.confidence
    return listed([f"{WORDS[name]} ({change(found[name], name, confidence)})" for name in names])


def best(outcome: Outcome, name: str) -> float:
    """The figure of the best constant guess for it."""
    return outcome.constants[name].second


def champion(outcome: Outcome) -> str:
    """The comparison with the champion in a sentence; empty if there is none."""
    if outcome.champion is None:
        return ""
    if outcome.few:
        return f"{outcome.groups:,} different photographs are too few to compare the model with the champion."
    found, confidence = outcome.champion.differences, outcome.settings.confidence
    accuracy, mae = (_change(name, found[name], confidence) for name in ("accuracy", "mae"))
    return f"Against the champion on the same photographs: {accuracy}; {mae}."


def _change(name: str, found: Difference, confidence: float) -> str:
    figures = change(found, name, confidence)
    if not significance(found, name):
        return f"no significant difference in {WORDS[name]} ({figures})"
    return f"{side(found.difference, name)} in {WORDS[name]} ({figures})"


def differs(outcome: Outcome, found: Difference, name: str) -> bool:
    """Whether a difference from the champion is significant, and there are enough photographs."""
    return not outcome.few and significance(found, name) != 0


def side(difference: float, name: str) -> str:
    """`better` or `worse`, by the sign of a difference in a figure."""
    return "better" if (difference < 0) == (name in LOWER_IS_BETTER) else "worse"


def calibration(outcome: Outcome) -> str:
    """The calibration error before and after temperature scaling."""
    found, intervals, temperature = outcome.figures, outcome.intervals, outcome.card.temperature
    now = f"{figure(found['ece'], 'ece')} ({span(intervals['ece'], 'ece')})"
    if temperature == 1.0:
        return f"The temperature is 1, so the probabilities are those of the network. The calibration error is {now}."
    before = f"{figure(found['ece_before'], 'ece')} ({span(intervals['ece_before'], 'ece')})"
    way = "less" if temperature > 1 else "more"
    fitted = f", fitted on {outcome.card.calibrated}," if outcome.card.calibrated else ""
    return (
        f"The temperature of {temperature:.3g}{fitted} makes the network {way} confident. The calibration error is "
        f"{before} before and {now} after scaling."
    )


def bias(outcome: Outcome) -> str:
    """The explanation of the calibration error's bias."""
    return (
        "This estimate is biased upward: even perfect calibration would show about "
        f"{figure(by_chance(outcome.predictions.confidence), 'ece')} by chance here. It is computed from the "
        f"confidence in the predicted range, in {BINS} bins of equal width."
    )


def prediction_sets(outcome: Outcome) -> str:
    """Coverage and size of the prediction sets, or the reason why there are none."""
    if outcome.sets is None:
        return no_sets(outcome.card, outcome.settings.level)
    found, intervals = outcome.figures, outcome.intervals
    low, high = intervals["coverage"]
    level = outcome.sets.level / 100
    covered, size = (span(intervals[name], name) for name in ("coverage", "set_size"))
    comparison = (
        "no significant difference from the target" if low <= level <= high
        else "above the target" if low > level else "below the target"
    )  # fmt: skip
    return (
        f"Sets of neighbouring ranges with a target of {outcome.sets.level} % contain the true range for "
        f"{figure(found['coverage'], 'coverage')} of the photographs ({covered}): {comparison}. They have "
        f"{found['set_size']:.1f} ranges on average ({size}), and a single one for "
        f"{figure(found['single'], 'single')} of the photographs."
    )


def worst_slices(outcome: Outcome) -> str:
    """The slices that are significantly worse than the rest, in accuracy or in age error."""
    table = outcome.slices
    large = table.filter("enough")
    if table.is_empty():
        return "There are no slices to compare."
    if large.is_empty():
        return f"None of the {len(table)} slices is large enough to compare."
    count = f"{len(large)} of {len(table)} slices are large enough to compare"
    worse = {name: behind(large, name, 1 - outcome.settings.confidence) for name in SLICE_FIGURES}
    if all(one.is_empty() for one in worse.values()):
        return f"{count}. None is significantly worse than the rest in accuracy or age error."
    both = pl.concat([one.select("kind", "slice") for one in worse.values()]).unique()
    parts = [_behind(one, name) for name, one in worse.items() if len(one)]
    return f"{count}. {len(both)} of these {'is' if len(both) == 1 else 'are'} significantly worse than the rest, " + (
        f"{'; '.join(parts)}."
    )


def behind(table: pl.DataFrame, name: str, chance: float) -> pl.DataFrame:
    """The slices that are worse than the rest in a figure, with a corrected p-value below `chance`; the worst first."""
    worse = pl.col(f"{name}_gap") * (1 if name in LOWER_IS_BETTER else -1)
    return table.filter((worse > 0) & (pl.col(f"{name}_p") < chance)).sort(worse, descending=True)


def _behind(table: pl.DataFrame, name: str) -> str:
    rows = table.select("kind", "slice", f"{name}_gap").head(MAX_NAMED).iter_rows()
    names = [f"{kind} {part} ({gap(value, name)} {UNITS[name]})" for kind, part, value in rows]
    names += [f"{len(table) - MAX_NAMED} more"] * (len(table) > MAX_NAMED)
    return f"in {WORDS[name]}: {listed(names)}"


def labels(outcome: Outcome) -> str:
    """The number of labels that are worth checking, and how they were found."""
    found, count = len(outcome.doubtful), len(outcome.predictions.labels)
    if not found:
        return "No label is less probable than the model's usual errors explain."
    are, they_are = ("is", "it is") if found == 1 else ("are", "they are")
    return (
        f"{found:,} of {count:,} labels {are} worth checking: {they_are} much less probable than the model's usual "
        f"errors explain, and further from the suggested range than the model's mean error "
        f"({outcome.figures['mae']:.1f} years). Either the label or the model may be wrong."
    )
