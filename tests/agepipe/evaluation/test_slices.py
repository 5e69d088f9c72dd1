"""Slices of judged rows."""

import polars as pl

from agepipe.evaluation.slices import slices


def test_slices_of_every_kind_leave_out_rows_without_a_value() -> None:
    table = pl.DataFrame(
        {
            "label": [0, 0, 1, 1, 2, 2], "gender": [0, 1, None, 0, 1, 1], "race": [0, 0, 0, 0, 0, 4],
            "width": [100, 200, 300, 400, 500, 600], "height": [600] * 6,
            "sharpness": [1.0, 2.0, 3.0, float("nan"), 5.0, 6.0], "brightness": [0.5] * 6,
        }
    )  # fmt: skip
    found = {(one.kind, one.name): one.rows.tolist() for one in slices(table, ("a", "b", "c", "d"))}
    assert found["gender", "male"] == [True, False, False, True, False, False]
    assert found["gender", "female"] == [False, True, False, False, True, True]
    assert found["race", "Other"] == [False] * 5 + [True]
    assert found["size", "small photographs"] == [True, True, False, False, False, False]
    assert not any(rows[3] for (kind, _), rows in found.items() if kind == "blur")
    assert ("range", "d") not in found
    assert not any(kind == "brightness" for kind, _ in found)


def test_columns_that_are_not_there_give_no_slices() -> None:
    assert {one.kind for one in slices(pl.DataFrame({"label": [0, 1]}), ("a", "b"))} == {"range"}
