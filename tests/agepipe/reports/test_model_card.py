"""The model card, and that it goes into the registry with the version."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import make_bundle, make_rows, seen
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, ReleaseSettings
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.registry import lookup, register
from agepipe.reports.model_card import model_card

QUICK = EvaluateSettings(draws=200)


def test_it_says_what_the_evaluation_found(tmp_path: Path, runtime: Runtime) -> None:
    rows, fitted = make_rows(tmp_path / "rows", 300), make_rows(tmp_path / "fitted", 50, seed=9)
    found = evaluated(make_bundle(tmp_path / "model", lineage=seen(fitted)), rows, QUICK, runtime)
    card = found.model_card.read_text(encoding="utf-8")
    assert f"| accuracy | {found.metrics['accuracy']:.1%}".replace("%", "\N{NO-BREAK SPACE}%") in card
    for needed in ("apparent ages", "non-commercial research", "## Slices", "fitted: 50 photographs"):
        assert needed in card
    assert str(tmp_path) not in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize(
    ("name", "licence"), [("sample", "synthetic faces"), ("faces", "non-commercial research only")]
)
def test_the_licence_is_that_of_the_data(tmp_path: Path, runtime: Runtime, name: str, licence: str) -> None:
    rows = make_rows(tmp_path / "rows", 60).model_copy(update={"name": name})
    card = model_card(compute_outcome(open_subject(make_bundle(tmp_path / "model"), rows), QUICK, runtime))
    assert licence in card


def test_rows_without_gender_and_race_are_no_slices(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 120)
    table = pl.read_parquet(rows.table).with_columns(gender=pl.lit(None, pl.Int8), race=pl.lit(None, pl.Int8))
    table.write_parquet(rows.table)
    card = model_card(compute_outcome(open_subject(make_bundle(tmp_path / "model"), rows), QUICK, runtime))
    assert "race:" not in card
    assert "range:" in card


def test_it_lies_with_the_version_in_the_registry(tmp_path: Path, tracked: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 60), make_bundle(tmp_path / "model")
    found = evaluated(model, rows, QUICK, tracked)
    register.register(model, found, ReleaseSettings(), tracked)
    (version,) = lookup.versions("agepipe", tracked)
    kept = Path(version.source.removeprefix("file://")) / "model-card.md"
    assert kept.read_bytes() == found.model_card.read_bytes()
    assert np.isfinite(found.metrics["accuracy"])
