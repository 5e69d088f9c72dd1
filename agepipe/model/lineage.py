"""A model is never judged on a photograph that it has seen, neither the same file nor a changed copy of it.

A copy is recognised by its look (`agepipe.model.phash.looks`): by the bits where it was saved again, mirrored or
turned by quarters, and by the sketch where it was cropped or turned a little (`agepipe.model.recognition`). Measured on
2,666 UTKFace chips, of 256 bits: copies saved again as JPEG at quality 50, or at a third of the size, differ in at
most 9, at quality 20 in at most 16, with another brightness and contrast in at most 20 but for four. Of the 227 million
pairs of 21,329 chips that a split does not bind none differs in fewer than 25, stored at another size 23.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.core.errors import LeakageError
from agepipe.model.bundle_files import Role
from agepipe.model.phash import COPY_BITS, same

MARGIN = 4
"""The split binds looks that are so many bits further apart, so that none of its own test rows ever looks like a
development row, not even when its pictures were stored at another size."""
LIMIT = COPY_BITS - MARGIN
"""Looks that differ in at most so many bits are those of one photograph."""
SHOWN = 5
"""How many seen rows a message names."""


@dataclass(frozen=True)
class Overlap:
    """Which rows a model has seen."""

    seen: NDArray[np.bool_]
    """`(rows,)`, true for a row that the model has seen."""
    by_content: int
    """Rows whose file is one that it has seen, byte for byte."""
    by_appearance: int
    """Further rows that are changed copies of one that it has seen."""
    roles: dict[str, int]
    """Seen rows by the gravest role that they had."""
    examples: tuple[str, ...]
    """The first few: path and role."""

    @property
    def count(self) -> int:
        """Rows that the model has seen."""
        return self.by_content + self.by_appearance


def overlap(lineage: pl.DataFrame, rows: pl.DataFrame) -> Overlap:
    """Find the rows that a model has seen.

    Args:
        lineage: the bundle's table: `digest`, `look`, `role`.
        rows: `digest` and `look` of each row, and `path` where there is one.
    """
    role = _roles(lineage)
    content = np.array([role.get(digest, "") for digest in rows["digest"]], dtype=object)
    appearance = _copies(lineage, role, rows, content == "")
    found = np.where(content != "", content, appearance)
    seen = found != ""
    names = rows["path"] if "path" in rows.columns else rows["digest"]
    return Overlap(
        seen=seen,
        by_content=int((content != "").sum()),
        by_appearance=int((appearance != "").sum()),
        roles={name: int((found == name).sum()) for name in get_args(Role) if (found == name).any()},
        examples=tuple(f"{names[int(at)]} ({found[at]})" for at in np.flatnonzero(seen)[:SHOWN]),
    )


def _roles(lineage: pl.DataFrame) -> dict[str, str]:
    """The gravest role of each photograph by digest: fitted, then chosen, then calibrated."""
    order = {name: rank for rank, name in enumerate(get_args(Role))}
    pairs = sorted(zip(lineage["digest"], lineage["role"], strict=True), key=lambda pair: -order.get(pair[1], 0))
    return dict(pairs)


def _copies(
    lineage: pl.DataFrame, role: dict[str, str], rows: pl.DataFrame, asked: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """The role of the photograph that each asked row is a copy of; empty for none; `(rows,)`."""
    found = np.full(len(rows), "", dtype=object)
    known = lineage.drop_nulls("look").unique("digest", keep="first", maintain_order=True)
    if known.is_empty() or not asked.any():
        return found
    digests = known["digest"].to_list()
    looks = rows["look"].filter(pl.Series(asked)).to_list()
    places = same(looks, known["look"].to_list(), LIMIT, 0.0)
    found[asked] = [role[digests[place]] if place >= 0 else "" for place in places]
    return found


INSTEAD = "evaluate on other rows, or give --exclude-seen to leave these out"
"""What to do when an evaluation is refused."""


def refuse(found: Overlap, what: str = "the model", field: str = "rows", instead: str = INSTEAD) -> None:
    """Stop whatever would judge a model on rows that it has seen.

    Args:
        found: those rows.
        what: the model, or the weights that it starts from.
        field: what the message begins with.
        instead: what to do, where it ends.

    Raises:
        LeakageError: says how many, which, in which role, and what to do.
    """
    if found.count == 0:
        return
    roles = ", ".join(f"{count} {name}" for name, count in found.roles.items())
    more = ", ..." if found.count > len(found.examples) else ""
    raise LeakageError(
        f"{field}: {what} has seen {found.count} of the {len(found.seen)} rows it would be judged on ({roles}; "
        f"{found.by_content} the same file, {found.by_appearance} a copy of one): {', '.join(found.examples)}{more}; "
        f"{instead}."
    )
