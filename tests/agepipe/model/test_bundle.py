import json
from pathlib import Path

import polars as pl
import pytest
from bundles import make_bundle, make_rows, seen

from agepipe.core.errors import ModelError
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import CARD, CURVES, LINEAGE, NETWORK, digest, read_card
from agepipe.model.bundle_files import read_curves, read_lineage, write_card


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    card = read_card(folder)
    write_card(folder, card.model_copy(update={"temperature": 1.5}))
    assert read_card(folder).temperature == 1.5
    assert read_card(folder).ranges.names == ("1-10", "11-20", "21-40", "over40")
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("name", [NETWORK, CARD])
def test_the_digest_sees_every_changed_byte(tmp_path: Path, name: str) -> None:
    model = make_bundle(tmp_path / "model")
    path = model.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert digest(model.folder) != model.digest


def test_the_digest_does_not_depend_on_the_place(tmp_path: Path) -> None:
    model = make_bundle(tmp_path / "one")
    assert digest(model.folder.rename(tmp_path / "two")) == model.digest


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    (folder / NETWORK).unlink()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        digest(folder)
    (folder / CARD).unlink()
    with pytest.raises(ModelError, match=r"card\.json: cannot be read"):
        read_card(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 3}'])
def test_a_card_that_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ModelError, match=r"card\.json"):
        read_card(tmp_path)


def test_ranges_sorted_as_text_are_no_class_order(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model", AgeRanges.of("utkface")).folder
    raw = json.loads((folder / CARD).read_text())
    raw["ranges"]["ranges"].sort(key=lambda item: f"{item['low']}-{item['high']}")
    (folder / CARD).write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="class order cannot be trusted"):
        read_card(folder)


def test_a_known_lineage_must_be_there(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "rows", 5)
    folder = make_bundle(tmp_path / "model", lineage=seen(rows, "chosen")).folder
    assert read_lineage(folder)["role"].to_list() == ["chosen"] * 5
    (folder / LINEAGE).write_bytes(b"PAR1 not really")
    with pytest.raises(ModelError, match=r"lineage\.parquet"):
        read_lineage(folder)
    (folder / LINEAGE).unlink()
    with pytest.raises(ModelError, match=r"lineage\.parquet"):
        read_lineage(folder)


def test_an_unknown_lineage_may_be_missing(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model", known=False).folder
    (folder / LINEAGE).unlink()
    assert read_lineage(folder).is_empty()


def test_a_lineage_without_its_columns_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    pl.DataFrame({"digest": ["a"]}).write_parquet(folder / LINEAGE)
    with pytest.raises(ModelError, match="look, role"):
        read_lineage(folder)


def test_an_imported_network_has_no_curves(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model").folder
    assert len(read_curves(folder)) == 6
    (folder / CURVES).unlink()
    assert read_curves(folder).is_empty()
