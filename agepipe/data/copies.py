"""Merge files with the same content and the same label into one photograph.

Files with the same content and different labels stay separate rows, because only the user can decide which label is
right (`labels.conflicts`). They share a group, so that a split never separates them.
"""

import polars as pl

LABEL = ("age", "gender", "race")
"""Labels in a file name: files with the same content and the same labels are one photograph."""
_SAME = ("digest", "age")


def photographs(files: pl.DataFrame) -> pl.DataFrame:
    """One row for each content and label; the result does not depend on the order of the files.

    A missing gender or race is taken from the other files with the same content and age if these agree on it.
    Otherwise it stays missing, and the file keeps a row of its own.

    Args:
        files: one row a file: `path`, `folder`, `digest`, the columns `LABEL`, and others that depend on the content.

    Returns:
        The row of the first path of each photograph; `folder` is the first class folder among its files, and `copies`
        lists the other paths. Rows are in the order of content digest and label.
    """
    return (
        files.sort("path")
        .with_columns(_completed("gender"), _completed("race"))
        .with_columns(pl.col("folder").drop_nulls().first().over("digest", *LABEL))
        .group_by("digest", *LABEL, maintain_order=True)
        .agg(pl.all().exclude("digest", *LABEL).first(), pl.col("path").slice(1).alias("copies"))
        .sort("digest", *LABEL, nulls_last=True)
    )


def _completed(name: str) -> pl.Expr:
    """The column with missing values filled if all other files with the same content and age have one value."""
    only = pl.col(name).min().over(_SAME) == pl.col(name).max().over(_SAME)
    return pl.col(name).fill_null(pl.when(only).then(pl.col(name).max().over(_SAME)))
