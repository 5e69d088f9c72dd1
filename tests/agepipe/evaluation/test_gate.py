import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import make_bundle, make_rows, pictures, seen

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, ReleaseSettings
from agepipe.core.progress import silent
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import Difference, SliceChange, paired_differences
from agepipe.evaluation.evaluate import predict_labelled
from agepipe.evaluation.gate import Comparison, compare, decided, pays
from agepipe.evaluation.predictions import read_rows
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import read_card
from agepipe.model.records import Model

QUICK = EvaluateSettings(draws=400)


def run(candidate: Model, champion: Model, rows: Rows, runtime: Runtime, **release: object) -> Comparison:
    return compare(candidate, champion, rows, ReleaseSettings(**{"metric": "mae", **release}), QUICK, runtime)


def test_the_better_is_promoted_and_the_worse_is_not(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 300, noise=0.02)
    good, poor = make_bundle(tmp_path / "good", sharpness=400), make_bundle(tmp_path / "poor", sharpness=5)
    up, down = run(good, poor, rows, runtime), run(poor, good, rows, runtime)
    assert up.promote
    assert up.difference is not None and up.difference < 0
    assert (up.rows, up.excluded) == (300, 0)
    assert not down.promote
    assert down.low is not None and down.low > 0
    assert down.difference == pytest.approx(-up.difference)


def test_two_that_cannot_be_told_apart_are_said_to_be(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 100)
    same = run(make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b"), rows, runtime)
    assert (same.promote, same.share_better) == (False, 0.0)
    near = run(
        make_bundle(tmp_path / "c", sharpness=61.0), make_bundle(tmp_path / "b"), rows, runtime, metric="accuracy"
    )
    assert not near.promote
    assert near.low is not None and near.high is not None and near.low <= 0 <= near.high


def test_rows_that_either_has_seen_are_left_out(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 200, noise=0.02)
    everything = seen(rows)
    good = make_bundle(tmp_path / "good", sharpness=400, lineage=everything.head(30))
    poor = make_bundle(tmp_path / "poor", sharpness=5, lineage=everything[20:60])
    found = run(good, poor, rows, runtime)
    assert (found.rows, found.excluded, found.promote) == (140, 60, True)


def test_too_few_rows_decide_nothing(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 60, noise=0.02)
    good = make_bundle(tmp_path / "good", sharpness=400, lineage=seen(rows, first=40))
    poor = make_bundle(tmp_path / "poor", sharpness=5)
    found = run(good, poor, rows, runtime)
    assert (found.promote, found.rows, found.excluded, found.difference) == (False, 20, 40, None)
    assert re.findall(r"\d+", found.reason) == ["20", "40", "50"]  # left, left out, and release.min_rows
    assert run(good, poor, rows, runtime, min_rows=20).promote
    all_seen = make_bundle(tmp_path / "all", lineage=seen(rows))
    assert run(all_seen, poor, rows, runtime, min_rows=1).rows == 0


def test_a_candidate_of_unknown_lineage_is_never_promoted(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 100, noise=0.02)
    stray = make_bundle(tmp_path / "stray", sharpness=400, known=False)
    poor = make_bundle(tmp_path / "poor", sharpness=5)
    found = run(stray, poor, rows, runtime)
    assert (found.promote, found.difference) == (False, None)
    assert not run(stray.model_copy(update={"lineage": "known"}), poor, rows, runtime).promote


def test_other_ranges_compare_by_years_alone(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 300, noise=0.02)
    fine = make_bundle(tmp_path / "fine", AgeRanges.of([*map(str, range(3, 60)), "over59"]), sharpness=3000)
    coarse = make_bundle(tmp_path / "coarse", sharpness=5)
    found = run(fine, coarse, rows, runtime, metric="accuracy")
    assert not found.promote
    assert "release.metric" in found.reason
    found = run(fine, coarse, rows, runtime)
    assert found.promote
    young = int((pl.read_parquet(rows.table)["age"] < 3).sum())
    assert found.excluded == young > 0
    ranges = AgeRanges.of(("3-20", "21-30", "over30"))
    watched = run(make_bundle(tmp_path / "own", ranges), coarse, rows, runtime, watch=("range",)).slices
    assert {one.name for one in watched} == set(ranges.words)


def test_a_comparison_finds_what_evaluations_predicted(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 80)
    a, b = make_bundle(tmp_path / "a", sharpness=50), make_bundle(tmp_path / "b", sharpness=70)
    first = run(a, b, rows, runtime)
    times = {path: path.stat().st_mtime_ns for path in runtime.workspace.glob("predictions/*/*")}
    assert len(times) == 2
    assert run(a, b, rows, runtime) == first
    assert {path: path.stat().st_mtime_ns for path in runtime.workspace.glob("predictions/*/*")} == times


def test_a_watched_slice_that_pays_forbids_the_promotion_and_is_named(tmp_path: Path, runtime: Runtime) -> None:
    """The pictures of one gender show an age that they have not, which only the sharper network falls for."""
    ages = np.random.default_rng(5).integers(1, 61, 400)
    shown, odd = ages.copy(), np.arange(1, 400, 2)  # odd rows are of one gender
    most = odd[odd // 2 % 3 > 0]
    shown[most] = np.clip(60 - ages[most] // 3, 1, 60)
    rows = make_rows(tmp_path / "rows", ages=ages, pixels=pictures(shown, 16, 3, 0.02))
    good, poor = make_bundle(tmp_path / "good", sharpness=400), make_bundle(tmp_path / "poor", sharpness=3)
    found = run(good, poor, rows, runtime, watch=("gender",))
    by_name = {one.name: one.changes["mae"].difference for one in found.slices}
    assert by_name["male"] < 0 < 0.5 < by_name["female"]
    assert not found.promote
    assert "gender female" in found.reason
    assert "release.margin allows 0.5" in found.reason
    assert run(good, poor, rows, runtime, watch=()).promote
    assert run(good, poor, rows, runtime, watch=("gender",), margin=90).promote


def test_slices_too_small_to_judge_forbid_nothing(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 120, noise=0.02)
    good, poor = make_bundle(tmp_path / "good", sharpness=400), make_bundle(tmp_path / "poor", sharpness=5)
    found = run(good, poor, rows, runtime)
    assert found.promote
    assert {one.kind for one in found.slices} == {"gender"}  # each race has 24 photographs


def difference(share_better: float, grown: float = 1.0) -> Difference:
    return Difference(5.0 + grown, 5.0, grown, grown - 1, grown + 1, share_better)


@pytest.mark.parametrize(("share", "promoted"), [(0.5, False), (0.949, False), (0.95, True), (1.0, True)])
def test_as_many_draws_as_were_asked_for_must_be_better(share: float, promoted: bool) -> None:
    release = ReleaseSettings(metric="mae", confidence=0.95)
    assert decided(difference(share, -1.0), (), release, QUICK, 300, 0).promote is promoted
    assert decided(difference(share, -1.0), (), release.model_copy(update={"confidence": 0.5}), QUICK, 300, 0).promote


@pytest.mark.parametrize(
    ("grown", "share_better", "forbids"),
    [
        (1.0, 0.04, True),
        (1.0, 0.06, False),
        (1.0, 0.5, False),
        (0.5, 0.0, False),
        (0.51, 0.0, True),
        (-1.0, 1.0, False),
    ],
)
def test_a_slice_pays_by_its_estimate_and_surely(grown: float, share_better: float, forbids: bool) -> None:
    """The estimate lies above the margin, and in as many draws as a gain needs the error grows at all."""
    change = difference(share_better, grown)
    one = SliceChange(kind="gender", name="male", rows=90, photographs=90, changes={"mae": change})
    release = ReleaseSettings(metric="mae", margin=0.5, confidence=0.95)
    assert pays(one, release) is forbids
    assert decided(difference(1.0, -1.0), (one,), release, QUICK, 300, 0).promote is not forbids


def test_the_gate_draws_groups_and_the_same_ones_for_both(tmp_path: Path, runtime: Runtime) -> None:
    groups = [str(at // 10) for at in range(300)]
    rows = make_rows(tmp_path / "rows", 300, noise=0.05, groups=groups)
    models = make_bundle(tmp_path / "a", sharpness=40), make_bundle(tmp_path / "b", sharpness=20)
    found = run(*models, rows, runtime)
    table = read_rows(rows)
    both = [predict_labelled(model, read_card(model.folder), rows, table, runtime, silent) for model in models]
    expected = paired_differences(table["group"].to_numpy(), *both, QUICK, figures=("mae",)).figures["mae"]
    assert (found.low, found.high, found.share_better) == pytest.approx(expected[3:])
    as_rows = paired_differences(range(300), *both, QUICK, figures=("mae",)).figures["mae"]
    assert (found.low, found.high) != pytest.approx(as_rows[3:5], rel=1e-9)
