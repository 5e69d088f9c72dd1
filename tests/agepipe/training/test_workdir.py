from pathlib import Path

import polars as pl
import pytest

from agepipe.config.runtime import Runtime, cores
from agepipe.config.stages import LearnSettings
from agepipe.core.errors import DataError
from agepipe.data.records import Rows
from agepipe.training.workdir import labelled, threads, trial_threads, weights_digest


def test_rows_have_one_order_whatever_that_of_their_table(rows: Rows, tmp_path: Path) -> None:
    pl.read_parquet(rows.table).reverse().write_parquet(tmp_path / "turned.parquet")
    turned = rows.model_copy(update={"table": tmp_path / "turned.parquet"})
    assert labelled(turned).equals(labelled(rows))


def test_a_table_that_lacks_a_column_is_refused(rows: Rows, tmp_path: Path) -> None:
    pl.read_parquet(rows.table).drop("look").write_parquet(tmp_path / "less.parquet")
    with pytest.raises(DataError, match="look"):
        labelled(rows.model_copy(update={"table": tmp_path / "less.parquet"}))


def test_weights_are_known_by_content_not_by_path(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "c.pt").write_bytes(b"others")
    a, b, c = (weights_digest(LearnSettings(weights=str(tmp_path / name))) for name in ("a.pt", "b.pt", "c.pt"))
    assert a == b != c
    assert weights_digest(LearnSettings(weights="IMAGENET1K_V1")) == "IMAGENET1K_V1"


def test_small_batches_take_one_thread_unless_told_otherwise() -> None:
    small, large = LearnSettings(batch=32, size=64), LearnSettings(batch=64, size=96)
    assert threads(small, Runtime()) == 1
    assert threads(large, Runtime()) == cores()
    assert threads(small, Runtime(threads=3)) == 3
    assert trial_threads(small, Runtime(workers=1)) == 1
    assert trial_threads(large, Runtime(workers=1)) == cores()
    assert trial_threads(large, Runtime(workers=512)) == 1
