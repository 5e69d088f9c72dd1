import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import RANGES, make_bundle, make_rows

from agepipe.config.runtime import Runtime
from agepipe.core.errors import DataError, ModelError
from agepipe.data.records import Rows
from agepipe.evaluation.predictions import PART, answer, read_rows


def test_answers_follow_the_order_of_the_table(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 300), make_bundle(tmp_path / "model")
    table = read_rows(rows)
    straight = answer(model, rows, table, runtime).prediction
    turned = answer(model, rows, table.reverse(), runtime).prediction
    assert np.array_equal(straight.years[::-1], turned.years)
    assert np.array_equal(straight.probabilities[::-1], turned.probabilities)


def test_finished_parts_are_found_and_damaged_ones_made_again(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", PART + 50), make_bundle(tmp_path / "model")
    table = read_rows(rows)
    first = answer(model, rows, table, runtime)
    kept, damaged = sorted(runtime.workspace.glob("predictions/*/part-*.npz"))
    times = kept.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = answer(model, rows, table, runtime)
    assert kept.stat().st_mtime_ns == times
    assert np.array_equal(first.prediction.probabilities, again.prediction.probabilities)
    assert len(again.prediction.years) == PART + 50


def test_a_refreshed_evaluation_predicts_anew(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 50), make_bundle(tmp_path / "model")
    answer(model, rows, read_rows(rows), runtime)
    (part,) = runtime.workspace.glob("predictions/*/part-*.npz")
    before = part.stat().st_mtime_ns
    answer(model, rows, read_rows(rows), runtime.model_copy(update={"refresh": ("split",)}))
    assert part.stat().st_mtime_ns > before


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from bundles import make_bundle, make_rows
from agepipe.config.stages import EvaluateSettings
from agepipe.config.runtime import Runtime
from folders import evaluated
base = Path({base!r})
rows, model = make_rows(base / "rows", {count}), make_bundle(base / "model")
evaluated(model, rows, EvaluateSettings(draws=100), Runtime(workspace=base / "workspace", workers=1),
          progress=lambda done, total, note="": os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_evaluation_loses_only_the_part_in_progress(tmp_path: Path) -> None:
    count = 3 * PART
    code = KILLED.format(tests=str(Path(__file__).parents[2]), base=str(tmp_path), count=count)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    workspace = tmp_path / "workspace"
    before = {path: path.stat().st_mtime_ns for path in workspace.glob("predictions/*/part-*.npz")}
    assert before
    assert not list(workspace.glob("evaluations/*/*"))
    rows, model = make_rows(tmp_path / "rows", count), make_bundle(tmp_path / "model")
    resumed = answer(model, rows, read_rows(rows), Runtime(workspace=workspace))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    fresh = answer(model, rows, read_rows(rows), Runtime(workspace=tmp_path / "other"))
    assert np.array_equal(resumed.prediction.probabilities, fresh.prediction.probabilities)


def test_pictures_of_another_size_are_brought_to_the_model_s(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 60, size=32, noise=0.0), make_bundle(tmp_path / "model", sharpness=2000)
    table = read_rows(rows)
    found = answer(model, rows, table, runtime).prediction
    assert np.mean(found.probabilities.argmax(axis=1) == table["label"].to_numpy()) > 0.9


def test_columns_in_another_order_than_the_ranges_are_caught(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 200)
    model = make_bundle(tmp_path / "model", sharpness=500, order=(0, 3, 2, 1))
    with pytest.raises(ModelError, match="not in the order 1-10, 11-20, 21-40"):
        answer(model, rows, read_rows(rows), runtime)


def test_an_indifferent_network_contradicts_nothing(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 30)
    found = answer(make_bundle(tmp_path / "model", sharpness=0.0), rows, read_rows(rows), runtime).prediction
    assert np.allclose(found.probabilities, 1 / len(RANGES))


def spoiled(rows: Rows, **columns: pl.Expr) -> Rows:
    pl.read_parquet(rows.table).with_columns(**columns).write_parquet(rows.table)
    return rows


def test_rows_that_cannot_be_read_are_named(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 5), make_bundle(tmp_path / "model")
    beyond = spoiled(rows, index=pl.col("index") + 3)
    with pytest.raises(DataError, match=r"pixels\.npy: .*5 pictures.* 7"):
        answer(model, beyond, read_rows(beyond), runtime)
    rows.pixels.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"pixels\.npy: "):
        answer(model, rows, read_rows(rows), runtime)
    pl.read_parquet(rows.table).drop("look").write_parquet(rows.table)
    with pytest.raises(DataError, match="the columns look are missing"):
        read_rows(rows)
    rows.table.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable table"):
        read_rows(rows)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 5)
    pl.read_parquet(rows.table).clear().write_parquet(rows.table)
    with pytest.raises(DataError, match="no rows to evaluate"):
        read_rows(rows)
