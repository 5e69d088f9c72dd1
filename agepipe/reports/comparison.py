"""What a comparison says: the sentences, one HTML file, and Markdown. The file asks nothing of the network."""

from collections.abc import Sequence
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined

from agepipe import __version__
from agepipe.evaluation.bootstrap import Difference
from agepipe.evaluation.comparison import Exact, SliceChange, Versus, surely
from agepipe.evaluation.figures import UNITS, WORDS, figure, gap, gap_span, listed
from agepipe.reports.compare import Contrast
from agepipe.reports.report import TITLES

SIGNIFICANT = 0.001
"""Smaller probabilities are not told apart."""
NAMED = 6
"""Slices that a sentence names one by one."""


def render(found: Contrast) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("agepipe.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": figure, "gap": gap, "gap_span": gap_span}
    page = environment.get_template("comparison.html.j2")
    return page.render(
        c=found, titles=TITLES, verdicts=verdicts(found), excluded=excluded(found), by_slice=by_slice, exact=exact,
        ordered=ordered, surely=partial(significant, found), reach=reach, enough=found.settings.min_slice,
        version=__version__,
    )  # fmt: skip


def verdicts(found: Contrast) -> list[str]:
    """One plain sentence for each model but the first."""
    pairs = zip(found.titles[1:], found.against, strict=True)
    return [verdict(title, found.titles[0], one, found) for title, one in pairs]


def verdict(title: str, first: str, one: Versus, found: Contrast) -> str:
    """Whether a model is better than the first, and in what."""
    on = f"on the same {found.count:,} photographs"
    if few(found):
        return (
            f"{found.photographs:,} different photographs are too few to compare {title} with {first}. At least "
            f"{found.settings.min_slice} are needed (evaluate.min_slice)."
        )
    better, worse = ([n for n, d in one.figures.items() if surely(d, n) == sign] for sign in (1, -1))
    sure = f"{found.settings.confidence * 100:g}% confidence for all figures together"
    if not better and not worse:
        return f"No clear difference between {title} and {first} {on} ({sure})."
    parts = [f"{word} in {_changes(names, one)}" for word, names in (("better", better), ("worse", worse)) if names]
    rest = "" if len(better) + len(worse) == len(one.figures) else "; no clear difference in the other figures"
    return f"Against {first}, {on}, {title} is {' and '.join(parts)}{rest} ({sure})."


def few(found: Contrast) -> bool:
    """Whether there are too few photographs to compare anything on."""
    return found.photographs < found.settings.min_slice


def significant(found: Contrast, change: Difference, name: str) -> int:
    """1 where the model is significantly better than the first, -1 where it is worse, 0 where neither can be told."""
    return 0 if few(found) else surely(change, name)


def _changes(names: Sequence[str], one: Versus) -> str:
    return listed([f"{WORDS[name]} ({gap(one.figures[name].difference, name)} {UNITS[name]})" for name in names])


def by_slice(title: str, one: Versus) -> str:
    """The slices on which the two differ significantly, in a sentence."""
    judged = [part for part in one.slices if part.changes]
    if not judged:
        return "No slice is large enough to compare."
    signs = [{surely(d, name) for name, d in part.changes.items()} for part in judged]
    parts = {
        word: [part for part, found in zip(judged, signs, strict=True) if sign in found]
        for word, sign in (("worse", -1), ("better", 1))
    }
    said = [f"significantly {word} in {_named(some, judged)}" for word, some in parts.items() if some]
    if not said:
        return f"No significant difference in any of {len(judged)} slices, allowing for looking at so many."
    none = "" if parts["worse"] else "; significantly worse in none"
    return f"{title} is {'; '.join(said)}{none}. This allows for looking at so many."


def _named(some: list[SliceChange], judged: list[SliceChange]) -> str:
    """Some of the slices, by their names where these are few, else by the names of the others where those are."""
    names, others = ([f"{part.kind} {part.name}" for part in judged if (part in some) is inside]
                     for inside in (True, False))  # fmt: skip
    count = f"{len(names)} of {len(judged)} slices"
    if len(names) <= NAMED:
        return f"{count} ({', '.join(names)})"
    return f"{count} (all but {', '.join(others)})" if 0 < len(others) <= NAMED else count


def exact(title: str, first: str, test: Exact) -> str:
    """McNemar's test in words."""
    counts = (
        f"Both pick the right range for {test.both:,} of {test.photographs:,} photographs, only {title} for "
        f"{test.first_only:,}, only {first} for {test.second_only:,}"
    )
    if test.first_only == test.second_only:
        return f"{counts}: an even split (of copies the first counts)."
    p = f"p < {SIGNIFICANT:g}" if test.p < SIGNIFICANT else f"p = {test.p:.2g}"
    return (
        f"{counts}. If the two were equally accurate, so uneven a split would be chance with {p} (McNemar's exact "
        "test; of copies the first counts)."
    )


def ordered(one: Versus) -> list[SliceChange]:
    """The slices, those that lose most first, those too small to judge last."""
    return sorted(one.slices, key=lambda part: -part.changes["mae"].difference if part.changes else float("inf"))


def reach(differences: Sequence[Difference]) -> float:
    """The largest end of any of the intervals, by which their strips are drawn to one scale."""
    return max((max(abs(one.low), abs(one.high)) for one in differences), default=1.0) or 1.0


def excluded(found: Contrast) -> str:
    """How many rows were left out, where any were."""
    if not found.excluded:
        return ""
    were = "photograph was" if found.excluded == 1 else "photographs were"
    return f"{found.excluded:,} {were} left out: one of the models has seen the photograph or has no range for its age."


def markdown(found: Contrast, page: str) -> str:
    """The sentences, a table of the figures, and where the page is."""
    lines = [*verdicts(found), "", *filter(None, [excluded(found)]), f"Page: `{page}`", ""]
    for title, one in zip(found.titles[1:], found.against, strict=True):
        lines += [f"| figure | {found.titles[0]} | {title} | difference | interval |", "|---|---|---|---|---|"]
        lines += [
            f"| {TITLES[n]} | {figure(d.second, n)} | {figure(d.first, n)} | {gap(d.difference, n)} {UNITS[n]} | "
            f"{gap_span((d.low, d.high), n)} |"
            for n, d in one.figures.items()
        ]
        lines.append("")
    return "\n".join(lines)
