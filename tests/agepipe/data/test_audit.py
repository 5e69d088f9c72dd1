import base64
import re
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from agepipe.config.stages import LabelSettings
from agepipe.core.errors import DataError
from agepipe.data import ingest
from agepipe.data.audit import Audit, Copies, Quartiles, Spike, Tally, audit, spikes
from agepipe.data.records import Catalogue
from agepipe.reports import data_text
from agepipe.reports.data_report import render

HOSTILE = "x/<img src=x onerror=alert(1)>\"'&_.jpg"


def catalogue(folder: Path, rows: list[dict[str, Any]], rejects: list[tuple[str, str, str]] = []) -> Catalogue:  # noqa: B006
    usual = {"gender": 0, "race": 0, "folder": None, "width": 200, "height": 200, "brightness": 0.5, "sharpness": 0.01}
    full = [
        {"index": k, "path": f"a/{k}.jpg", "digest": f"{k:064d}", "look": bytes(32), "copies": [], **usual, **row}
        for k, row in enumerate(rows)
    ]
    full = [{**row, "group": row.get("group", row["digest"])} for row in full]
    pl.DataFrame(full, schema=ingest.SCHEMA).write_parquet(folder / "catalogue.parquet")
    pl.DataFrame(rejects, schema=ingest.REJECTS, orient="row").write_parquet(folder / "rejects.parquet")
    pixels = np.random.default_rng(0).integers(0, 255, (len(rows), 32, 32, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    return Catalogue(digest="c" * 64, name="small", folder=folder, size=32, count=len(rows), rejected=len(rejects))


def planted(folder: Path) -> Catalogue:
    """Two identical pairs (one apart in age, range and gender), a re-encoded triple, and lonely rows."""
    return catalogue(
        folder,
        [
            {"age": 3, "digest": "a", "group": "a"},
            {"age": 30, "digest": "a", "group": "a", "gender": 1},
            {"age": 24, "digest": "b", "group": "b"},
            {"age": 24, "digest": "b", "group": "b", "gender": None},
            {"age": 41, "digest": "c", "group": "c"},
            {"age": 42, "digest": "c", "group": "c"},
            {"age": 43, "digest": "d", "group": "c"},
            {"age": 65, "race": None, "folder": "11", "width": 90},
            {"age": 71, "race": 4, "folder": "61-70", "path": HOSTILE},
            {"age": 2, "folder": "7"},
        ],
        [(HOSTILE, "truncated", "<b>short</b>"), ("b.txt", "not an image", "text"), ("c.txt", "not an image", "text")],
    )


def test_counts_agree_with_what_was_planted(tmp_path: Path) -> None:
    found = audit(planted(tmp_path), LabelSettings())
    assert (found.files, found.usable, found.rejected) == (13, 10, 3)
    assert found.rejects == (Tally(name="not an image", count=2), Tally(name="truncated", count=1))
    assert [tally.count for tally in found.ranges] == [1, 1, 0, 0, 0, 0, 2, 1, 0, 3, 0, 1, 1, 0]
    assert [tally.name for tally in found.ranges] == list(LabelSettings().age_ranges().names)
    assert found.genders == (
        Tally(name="male", count=8), Tally(name="female", count=1), Tally(name="unknown", count=1)
    )  # fmt: skip
    assert [(tally.name, tally.count) for tally in found.races] == [
        ("White", 8), ("Black", 0), ("Asian", 0), ("Indian", 0), ("Other", 1), ("unknown", 1)
    ]  # fmt: skip
    assert found.exact == Copies(groups=3, surplus=3, ages=2, ranges=1, genders=1)
    assert found.near == Copies(groups=3, surplus=4, ages=2, ranges=1, genders=1)
    assert (found.foldered, found.misfiled) == (3, 2)
    assert found.sizes == (Tally(name="200 × 200", count=9), Tally(name="90 × 200", count=1))
    assert found.round_share == 0.5


def test_a_folder_named_for_a_range_wins_over_the_position(tmp_path: Path) -> None:
    rows = catalogue(tmp_path, [{"age": 1, "folder": "1"}, {"age": 2, "folder": "1"}, {"age": 1, "folder": "over80"}])
    found = audit(rows, LabelSettings(ranges=("1", "2", "3+")))
    assert (found.foldered, found.misfiled) == (2, 1)


def test_ages_outside_the_ranges_are_counted_and_said(tmp_path: Path) -> None:
    rows = catalogue(tmp_path, [{"age": 5, "folder": "0"}, {"age": 50}, {"age": 12}])
    found = audit(rows, LabelSettings(ranges=("10-20", "21-40")))
    assert found.outside == 2
    assert [tally.count for tally in found.ranges] == [1, 0]
    assert (found.foldered, found.misfiled) == (1, 1)
    assert any("2 photographs have an age outside all ranges" in note for note in data_text.notes(found))


def test_a_spike_stands_far_above_its_neighbours_and_is_not_chance() -> None:
    counts = [(24, 100), (25, 100), (26, 400), (27, 100), (28, 100), (60, 5), (61, 1)]
    assert spikes(counts) == (Spike(age=26, count=400, expected=100.0),)
    assert spikes([(age, 50) for age in range(1, 40)]) == ()


def test_quartiles_are_of_the_column(tmp_path: Path) -> None:
    rows = catalogue(tmp_path, [{"age": 20, "brightness": value} for value in (0.0, 0.25, 0.5, 0.75, 1.0)])
    found = audit(rows, LabelSettings()).brightness
    assert (found.low, found.first, found.median, found.third, found.high) == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_a_table_that_contradicts_its_record_is_refused(tmp_path: Path) -> None:
    record = catalogue(tmp_path, [{"age": 20}])
    with pytest.raises(DataError, match="has 1 rows where its record says 2"):
        audit(record.model_copy(update={"count": 2}), LabelSettings())
    record.table.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        audit(record, LabelSettings())


def test_an_audit_survives_json(tmp_path: Path) -> None:
    found = audit(planted(tmp_path), LabelSettings())
    assert Audit.model_validate_json(found.model_dump_json()) == found


def test_markdown_has_the_ranges_in_their_order_and_quotes_names(tmp_path: Path) -> None:
    found = audit(planted(tmp_path), LabelSettings()).model_copy(update={"name": "a|b<script>"})
    text = data_text.markdown(found)
    assert text.startswith("# a\\|b\\<script\\>\n")
    assert text.index("| 6\\-10 |") < text.index("| 11\\-14 |") < text.index("| over80 |")
    assert "| with re-encoded copies | 3 | 4 | 2 | 1 | 1 |" in text
    assert "2 of 3 photographs lie in the folder of another range" in text


def test_the_page_writes_large_measures_in_full(tmp_path: Path) -> None:
    record = catalogue(tmp_path, [{"age": 20}])
    sharpness = Quartiles(low=231.4, first=730.0, median=954.0, third=1234.4, high=3222.9)
    page = render(audit(record, LabelSettings()).model_copy(update={"sharpness": sharpness}), record)
    for text in ("<td>231</td>", "<td>1,234</td>", "<td>3,223</td>", "<td>100.0\N{NO-BREAK SPACE}%</td>"):
        assert text in page


def test_the_terminal_shows_the_same_counts(tmp_path: Path) -> None:
    console = Console(width=110, record=True, file=StringIO())
    console.print(data_text.table(audit(planted(tmp_path), LabelSettings())))
    text = console.export_text()
    assert re.search(r"41-50\s+3\s+30\.0\N{NO-BREAK SPACE}%", text)
    assert re.search(r"identical files\s+3\s+3\s+2\s+1\s+1", text)
    assert re.search(r"not an image\s+2", text)


def test_the_report_escapes_hostile_names_and_needs_no_other_file(tmp_path: Path) -> None:
    rows = planted(tmp_path)
    page = render(audit(rows, LabelSettings()).model_copy(update={"name": "<script>alert(1)</script>"}), rows)
    assert "<img src=x" not in page
    assert "<script" not in page
    assert "<b>short</b>" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "@import" not in page


def test_the_report_shows_the_stored_pictures_of_conflicting_groups(tmp_path: Path) -> None:
    rows = planted(tmp_path)
    page = render(audit(rows, LabelSettings()), rows)
    first = re.search(r'src="data:image/jpeg;base64,([^"]+)" alt="age (\d+)"', page)
    assert first is not None
    assert first[2] == "3"  # the pair 27 years apart comes first
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(first[1]), np.uint8), cv2.IMREAD_COLOR_RGB)
    stored = np.load(rows.pixels)[0]
    assert shown is not None
    assert np.abs(shown.astype(int).mean(axis=(0, 1)) - stored.astype(int).mean(axis=(0, 1))).max() < 6
    assert page.count("12 of") == 0
    assert "2 of 2 groups." in page


def test_an_empty_list_of_rejects_and_no_copies_make_a_page_too(tmp_path: Path) -> None:
    rows = catalogue(tmp_path, [{"age": 20}])
    page = render(audit(rows, LabelSettings()), rows)
    assert "None: every file could be used." in page
    assert "undefined" not in page
