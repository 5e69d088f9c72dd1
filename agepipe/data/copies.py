"""Files with the same content and the same label are one photograph; a data set may hold it in several folders.

Files with the same content whose labels differ stay separate rows: only the user can say which label is right
(`labels.conflicts`). They share a group, so that they never lie on two sides of a split.
"""

import polars as pl

LABEL = ("age", "gender", "race")
"""What a file name says of the person: rows with the same content that agree on it are one photograph."""
_SAME = ("digest", "age")


def photographs(files: pl.DataFrame) -> pl.DataFrame:
    """One row for each content and label, the same in whatever order the files come.

    A gender or race that a name leaves out is taken from the other files of that content and age, provided that those
    which give one agree. If they do not, the file keeps the gap and so a row of its own.

    Args:
        files: one row a file: `path`, `folder`, `digest`, the columns `LABEL`, and others that follow from the content.

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
    """The column with its gaps filled by the one value that the other files of that content and age give."""
    only = pl.col(name).min().over(_SAME) == pl.col(name).max().over(_SAME)
    return pl.col(name).fill_null(pl.when(only).then(pl.col(name).max().over(_SAME)))
