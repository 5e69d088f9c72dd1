"""What a comparison says: the sentences, one HTML file, and Markdown. The file asks nothing of the network."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from agepipe import __version__
from agepipe.judge.contrast import Contrast
from agepipe.judge.intervals import Difference
from agepipe.judge.report import TITLES
from agepipe.judge.sentences import figure, gap, gap_span
from agepipe.judge.versus import Exact, SliceChange, Versus, surely

SHORT = {
    "accuracy": "accuracy", "within_one": "within one range", "macro_recall": "macro recall", "mae": "age error",
    "loss": "loss",
}  # fmt: skip
"""The figures in a sentence."""
UNITS = dict.fromkeys(SHORT, "points") | {"mae": "years", "loss": "nats"}
"""What a difference is counted in."""


def render(found: Contrast) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("agepipe.judge"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": figure, "gap": gap, "gap_span": gap_span}
    page = environment.get_template("comparison.html.j2")
    return page.render(
        c=found, titles=TITLES, verdicts=verdicts(found), excluded=excluded(found), by_slice=by_slice, exact=exact,
        ordered=ordered, surely=surely, reach=reach, enough=found.settings.min_slice, version=__version__,
    )  # fmt: skip


def verdicts(found: Contrast) -> list[str]:
    """One plain sentence for each model but the first."""
    pairs = zip(found.titles[1:], found.against, strict=True)
    return [verdict(title, found.titles[0], one, found) for title, one in pairs]


def verdict(title: str, first: str, one: Versus, found: Contrast) -> str:
    """Whether a model is better than the first, and in what."""
    better, worse = ([n for n, d in one.figures.items() if surely(d, n) == sign] for sign in (1, -1))
    on = f"on the same {found.count:,} rows"
    sure = f"{found.settings.confidence:.0%} sure of all figures at once"
    if not better and not worse:
        return f"{title} and {first} cannot be told apart {on} ({sure})."
    parts = [f"{word} in {_listed(names, one)}" for word, names in (("better", better), ("worse", worse)) if names]
    rest = "" if len(better) + len(worse) == len(one.figures) else "; in the other figures they cannot be told apart"
    return f"Against {first}, {on}, {title} is {' and '.join(parts)}{rest} ({sure})."


def _listed(names: Sequence[str], one: Versus) -> str:
    said = [f"{SHORT[name]} ({gap(one.figures[name].difference, name)} {UNITS[name]})" for name in names]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def by_slice(title: str, one: Versus) -> str:
    """The slices on which the two can be told apart, in a sentence."""
    signs = [{surely(d, name) for name, d in part.changes.items()} for part in one.slices]
    judged = sum(bool(part.changes) for part in one.slices)
    better, worse = (
        [f"{part.kind} {part.name}" for part, told in zip(one.slices, signs, strict=True) if sign in told]
        for sign in (1, -1)
    )
    if not better and not worse:
        return f"On none of {judged} slices can the two be told apart, allowing for that so many were looked at."
    said = [f"{word} on {', '.join(names)}" for word, names in (("worse", worse), ("better", better)) if names]
    none = "" if worse else "; worse on none"
    return f"Of {judged} slices {title} is {'; '.join(said)}{none}. On the others the two cannot be told apart."


def exact(title: str, first: str, test: Exact) -> str:
    """McNemar's test in words."""
    return (
        f"Both name the right range of {test.both:,} of {test.photographs:,} photographs, only {title} of "
        f"{test.first_only:,}, only {first} of {test.second_only:,}; were they equally often right, counts so far "
        f"apart would come with a probability of {test.p:.2g} (McNemar's exact test; of copies the first counts)."
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
    return (
        f"{found.excluded:,} rows were left out, because one of the models has seen them or has no range for their age."
    )


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
