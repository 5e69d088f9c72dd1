"""Find the photographs that a model has seen, as the same file or as a changed copy, so that no evaluation uses them.

A copy is recognised by its perceptual hash (`agepipe.model.phash`): by the bits if it was re-encoded, mirrored or
rotated by 90°, and by the sketch if it was cropped or rotated slightly (`agepipe.model.recognition`). Measured on 2,666
UTKFace chips, of 256 bits: copies re-encoded as JPEG at quality 50, or at a third of the size, differ in at most 9; at
quality 20 in at most 16; with other brightness and contrast in at most 20, with four exceptions. Of the 227 million
pairs of 21,329 chips that a split does not group, none differs in fewer than 25, and in fewer than 23 when stored at
another size.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.core.errors import LeakageError
from agepipe.model.bundle_files import Role
from agepipe.model.phash import COPY_BITS, copies_among

MARGIN = 4
"""A split groups hashes that differ in this many bits more than a lineage recognises, so that none of its test rows
counts as seen, not even if the pictures were stored at another size."""
LIMIT = COPY_BITS - MARGIN
"""Hashes that differ in at most this number of bits are of one photograph."""
SHOWN = 5
"""Maximum number of seen rows that a message names."""


@dataclass(frozen=True)
class Overlap:
    """Which rows a model has seen."""

    seen: NDArray[np.bool_]
    """`(rows,)`, true for a row that the model has seen."""
    by_content: int
    """Rows whose file the model has seen, byte for byte."""
    by_appearance: int
    """Further rows that are changed copies of photographs that the model has seen."""
    roles: dict[str, int]
    """Number of seen rows by their most severe role: fitted, then chosen, then calibrated."""
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
    """The most severe role of each photograph by digest: fitted, then chosen, then calibrated."""
    order = {name: rank for rank, name in enumerate(get_args(Role))}
    pairs = sorted(zip(lineage["digest"], lineage["role"], strict=True), key=lambda pair: -order.get(pair[1], 0))
    return dict(pairs)


def _copies(
    lineage: pl.DataFrame, role: dict[str, str], rows: pl.DataFrame, unknown: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """The role of the photograph that each of the `unknown` rows is a copy of, or an empty text; `(rows,)`."""
    found = np.full(len(rows), "", dtype=object)
    known = lineage.drop_nulls("look").unique("digest", keep="first", maintain_order=True)
    if known.is_empty() or not unknown.any():
        return found
    digests = known["digest"].to_list()
    hashes = rows["look"].filter(pl.Series(unknown)).to_list()
    places = copies_among(hashes, known["look"].to_list(), LIMIT, 0.0)
    found[unknown] = [role[digests[place]] if place >= 0 else "" for place in places]
    return found


INSTEAD = "evaluate on other rows, or give --exclude-seen to leave these out"
"""The remedy in the error of an evaluation."""


def refuse(found: Overlap, what: str = "the model", field: str = "rows", instead: str = INSTEAD) -> None:
    """Raise an error if a model has seen any of the rows.

    Args:
        found: the seen rows.
        what: the subject of the message: the model, or the weights that it starts from.
        field: the beginning of the message.
        instead: the remedy, at the end of the message.

    Raises:
        LeakageError: names the number, the roles and some of the seen rows, and the remedy.
    """
    if found.count == 0:
        return
    roles = ", ".join(f"{count} {name}" for name, count in found.roles.items())
    more = ", ..." if found.count > len(found.examples) else ""
    raise LeakageError(
        f"{field}: {what} has seen {found.count} of the {len(found.seen)} rows it would be evaluated on ({roles}; "
        f"{found.by_content} the same file, {found.by_appearance} a copy of one): {', '.join(found.examples)}{more}; "
        f"{instead}."
    )
