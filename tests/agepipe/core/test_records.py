"""Records say what they are by a digest, where they lie by paths, and whether they are still of use."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agepipe.config.stages import LabelSettings, SplitSettings
from agepipe.core.record import digest_of
from agepipe.data.records import Catalogue, Partition, Rows, Source
from agepipe.model.ages import AgeRanges
from agepipe.training.records import Choice
from tasks.stored import RECORDS

PARTS = st.recursive(st.one_of(st.text(), st.integers(), st.none(), st.booleans()), st.lists, max_leaves=6)


def rows(folder: Path, digest: str = "d" * 64) -> Rows:
    pixels, ranges = folder / "pixels.npy", AgeRanges.of("utkface")
    return Rows(digest=digest, table=folder / "rows.parquet", pixels=pixels, size=64, count=3, ranges=ranges)


def partition(folder: Path) -> Partition:
    return Partition(
        digest="p" * 64,
        development=rows(folder / "a"),
        test=rows(folder / "b", "e" * 64),
        whole="w" * 64,
        members=folder / "members.parquet",
        settings=SplitSettings(),
    )


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@given(st.lists(PARTS), st.lists(PARTS))
def test_other_parts_give_another_digest(one: list[object], two: list[object]) -> None:
    assert (digest_of(*one) == digest_of(*two)) == (repr(one) == repr(two))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("ab", "c"), ("a", "bc")),
        ((("a", "b"),), ("a", "b")),
        (("1",), (1,)),
        ((("a,b",),), (("a", "b"),)),
        ((), ("",)),
    ],
)
def test_parts_do_not_run_into_each_other(one: tuple[object, ...], two: tuple[object, ...]) -> None:
    assert digest_of(*one) != digest_of(*two)


def test_a_record_counts_by_its_digest_and_settings_by_their_values(tmp_path: Path) -> None:
    assert digest_of(rows(tmp_path / "here")) == digest_of(rows(tmp_path / "there"))
    assert digest_of(rows(tmp_path)) != digest_of(rows(tmp_path, "e" * 64))
    assert digest_of((rows(tmp_path / "here"), 1)) == digest_of((rows(tmp_path / "there"), 1))
    assert digest_of(LabelSettings()) == digest_of(LabelSettings(conflicts="keep"))
    assert digest_of(LabelSettings()) != digest_of(LabelSettings(conflicts="drop"))


def test_a_digest_is_the_same_on_any_day() -> None:
    assert digest_of("a", 1) == "13ddd1cec47a258d76205503d2c658126903351e751c13214a22b6f6f1cfc868"


def test_intact_follows_the_files_of_nested_records_too(tmp_path: Path) -> None:
    found = partition(tmp_path)
    inner = (*found.development.files(), *found.test.files())
    assert len(inner) == 4
    make(*inner)
    assert not found.intact()
    make(found.members)
    assert found.intact()
    found.test.table.unlink()
    assert not found.intact()
    assert found.development.intact()


def test_a_source_is_intact_while_all_its_locations_are_there(tmp_path: Path) -> None:
    source = Source(digest="s" * 64, name="two", locations=(tmp_path / "one.tar", tmp_path / "two.tar"))
    make(source.locations[0])
    assert not source.intact()
    make(source.locations[1])
    assert source.intact()


def test_records_come_back_from_json_as_their_own_types(tmp_path: Path) -> None:
    found = partition(tmp_path)
    again = Partition.model_validate_json(found.model_dump_json())
    assert again == found
    assert isinstance(again.test, Rows)
    assert isinstance(again.members, Path)
    assert again.test.ranges.names == AgeRanges.of("utkface").names


def test_a_record_is_stored_without_its_workspace_and_used_in_another(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    stored = partition(here).relative_to(here)
    assert str(tmp_path) not in stored.model_dump_json()
    assert stored.resolved_in(here) == partition(here)
    assert stored.resolved_in(there) == partition(there)
    assert stored.digest == partition(here).digest


def test_all_paths_of_a_record_count_and_those_outside_stay(tmp_path: Path) -> None:
    inside, outside = tmp_path / "workspace" / "trials" / "a", tmp_path / "other" / "b"
    choice = Choice(
        digest="c", settings={}, metric="loss", mean=0.0, deviation=0.0, trials=2, outcomes=(inside, outside)
    )
    stored = choice.relative_to(tmp_path / "workspace")
    assert stored.outcomes == (Path("trials/a"), outside)
    assert not choice.lies_in(tmp_path / "workspace")
    assert choice.lies_in(tmp_path)
    assert partition(tmp_path / "workspace").lies_in(tmp_path / "workspace")
    strange = partition(tmp_path / "workspace").model_copy(update={"test": rows(tmp_path / "other")})
    assert not strange.lies_in(tmp_path / "workspace")
    climbing = rows(tmp_path / "workspace" / ".." / "other")
    assert not climbing.lies_in(tmp_path / "workspace")


def test_files_of_a_record_lie_in_its_folder(tmp_path: Path) -> None:
    catalogue = Catalogue(digest="c" * 64, name="n", folder=tmp_path, size=64, count=1, rejected=0)
    assert tmp_path == catalogue.pixels.parent == catalogue.table.parent == catalogue.rejects.parent
    moved = catalogue.moved(tmp_path, tmp_path / "there")
    assert moved.pixels.parent == tmp_path / "there"
    assert moved.moved(tmp_path / "elsewhere", tmp_path) == moved


def test_no_record_can_be_changed_or_hold_what_it_does_not_know(tmp_path: Path) -> None:
    found = rows(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        found.count = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        Rows.model_validate({**found.model_dump(), "pictures": 1})


def test_every_record_is_frozen_strict_and_says_what_it_is() -> None:
    for kind in RECORDS:
        assert kind.model_config["frozen"], kind
        assert kind.model_config["extra"] == "forbid", kind
        assert kind.__doc__, kind
        assert kind.model_fields["digest"].is_required(), kind
