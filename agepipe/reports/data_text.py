"""An audit as text: Markdown for a flow's artifact, and tables for the terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agepipe.core.words import counted
from agepipe.data.audit import ROUND_FROM, Audit, Copies, Tally
from agepipe.evaluation.figures import percent

_BAR = 24


def summary(audit: Audit) -> str:
    """One or two sentences: number of photographs, ages, and copies."""
    text = f"{counted(audit.usable, 'usable photograph')} of {counted(audit.files, 'file')}"
    if audit.ages:
        text += f", aged {audit.ages[0][0]} to {audit.ages[-1][0]}"
    near = audit.near
    if near.groups:
        is_ = "is a copy of another" if near.surplus == 1 else "are copies of others"
        copies = f"{counted(near.surplus, 'file')} {is_}"
        text += f". {copies}, in {counted(near.groups, 'group')}, and {_agreement(near)} on the age"
    return text + "."


def _agreement(copies: Copies) -> str:
    if copies.ages:
        return f"{counted(copies.ages, 'group')} {'disagrees' if copies.ages == 1 else 'disagree'}"
    return "its members agree" if copies.groups == 1 else "all groups agree"


def notes(audit: Audit) -> list[str]:
    """Notes on unusual counts, a sentence each."""
    sentences = []
    if audit.repeated:
        has, counts = ("has", "it counts") if audit.repeated == 1 else ("have", "such files count")
        repeated = counted(audit.repeated, "file")
        sentences.append(f"{repeated} {has} the same content and label as another; {counts} as one photograph with it.")
    if audit.outside:
        has, is_ = ("has", "is") if audit.outside == 1 else ("have", "are")
        outside = counted(audit.outside, "photograph")
        sentences.append(f"{outside} {has} an age outside all ranges and {is_} left out of training.")
    if audit.spikes:
        most = sorted(audit.spikes, key=lambda spike: spike.count - spike.expected, reverse=True)[:8]
        listed = ", ".join(f"{s.age} ({s.count:,} where {s.expected:,.0f} are expected)" for s in most)
        sentences.append(f"Ages far above their neighbours: {listed}.")
    if audit.round_share is not None:
        sentences.append(
            f"{percent(audit.round_share, '.0f')} of the ages from {ROUND_FROM} on are multiples of 5; "
            f"{percent(0.2, '.0f')} would be chance."
        )
    if audit.foldered:
        sentences.append(
            f"{audit.misfiled:,} of {counted(audit.foldered, 'photograph')} "
            f"{'lies' if audit.misfiled == 1 else 'lie'} in the folder of another range than the age has; the age in "
            "the file name is used."
        )
    empty = [tally.name for tally in audit.ranges if tally.count == 0]
    if empty:
        sentences.append(f"Ranges without any photograph: {', '.join(empty[:20])}.")
    return sentences


def markdown(audit: Audit) -> str:
    """The audit as Markdown; names from the source are escaped."""
    parts = [f"# {_escaped(audit.name)}", summary(audit), *(f"- {note}" for note in notes(audit))]
    parts.append(_section("Range", audit.ranges))
    parts.append(_section("Gender", audit.genders))
    parts.append(_section("Race", audit.races))
    parts.append(_copies_section(audit))
    if audit.rejects:
        parts.append(_section("Rejected because", audit.rejects))
    parts.append(_section("Size, px", audit.sizes))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return "".join("\\" + letter if letter in "\\`*_{}[]()<>#+-!|" else letter for letter in text)


def _section(title: str, tallies: Sequence[Tally]) -> str:
    total = sum(tally.count for tally in tallies) or 1
    lines = [f"| {title} | Photographs | Share |", "|---|---:|---:|"]
    lines += [f"| {_escaped(t.name)} | {t.count:,} | {percent(t.count / total)} |" for t in tallies]
    return "\n".join(lines)


def copy_rows(audit: Audit) -> list[tuple[str, Copies]]:
    """Both kinds of copies, with their titles."""
    return [("identical files", audit.exact), ("with re-encoded copies", audit.near)]


def _copies_section(audit: Audit) -> str:
    lines = ["| Copies | Groups | Redundant copies | Ages differ | Ranges differ | Genders differ |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for title, c in copy_rows(audit):
        lines.append(f"| {title} | {c.groups:,} | {c.surplus:,} | {c.ages:,} | {c.ranges:,} | {c.genders:,} |")
    return "\n".join(lines)


def table(audit: Audit) -> Group:
    """The audit for the terminal."""
    parts: list[Text | Table] = [Text(audit.name, style="bold"), Text(summary(audit))]
    parts += [Text(f"• {note}", style="dim") for note in notes(audit)]
    parts.append(_counts("range", audit.ranges))
    parts += [_counts("gender", audit.genders), _counts("race", audit.races)]
    parts.append(_copies_table(audit))
    if audit.rejects:
        parts.append(_counts("rejected because", audit.rejects))
    return Group(*parts)


def _counts(title: str, tallies: Sequence[Tally]) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(title, min_width=16)
    found.add_column("photographs", justify="right")
    found.add_column("share", justify="right")
    found.add_column("", style="cyan")
    total = sum(tally.count for tally in tallies) or 1
    most = max((tally.count for tally in tallies), default=0) or 1
    for t in tallies:
        bar = "█" * round(_BAR * t.count / most)
        found.add_row(escape(t.name), f"{t.count:,}", f"{percent(t.count / total)}", bar)
    return found


def _copies_table(audit: Audit) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column("copies", min_width=16)
    for title in ("groups", "redundant", "ages differ", "ranges differ", "genders differ"):
        found.add_column(title, justify="right")
    for title, c in copy_rows(audit):
        found.add_row(title, *(f"{value:,}" for value in (c.groups, c.surplus, c.ages, c.ranges, c.genders)))
    return found
