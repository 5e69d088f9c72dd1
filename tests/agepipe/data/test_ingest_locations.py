"""Sources of several parts: folders with archives in them, several archives, and what the digest makes of them."""

import shutil
from pathlib import Path

import pytest
from photographs import chip_name, chips, jpeg, tar_of, zip_of

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.core.errors import SourceError
from agepipe.data.records import Catalogue
from agepipe.data.sources import fingerprint
from tasks.data import ingest


def take(runtime: Runtime, *data: Path) -> Catalogue:
    source = fingerprint(SourceSettings(data=tuple(map(str, data))), runtime)
    return ingest(source, IngestSettings(size=32), runtime)


def faces(first: int, count: int) -> dict[str, bytes]:
    return {f"UTKFace/{chip_name(first + number, first + number)}": jpeg(first + number) for number in range(count)}


def test_neither_order_nor_names_of_the_locations_change_the_digest(tmp_path: Path, runtime: Runtime) -> None:
    first, second = tar_of(tmp_path / "one.tar", faces(1, 5)), zip_of(tmp_path / "two.zip", faces(40, 5))
    there, back = take(runtime, first, second), take(runtime, second, first)
    renamed = take(
        runtime, Path(shutil.copy(first, tmp_path / "uno.tar")), Path(shutil.copy(second, tmp_path / "due.zip"))
    )
    together = take(runtime, tar_of(tmp_path / "all.tar", {**faces(40, 5), **faces(1, 5)}))
    assert len({there.folder, back.folder, renamed.folder, together.folder}) == 4
    assert there.digest == back.digest == renamed.digest == together.digest
    assert take(runtime, first).digest != there.digest


def test_two_locations_of_one_name_are_both_read(tmp_path: Path, runtime: Runtime) -> None:
    chips(tmp_path / "a" / "faces", 3)
    chips(tmp_path / "b" / "faces", 3, first=10)
    assert take(runtime, tmp_path / "a" / "faces", tmp_path / "b" / "faces").count == 6


def test_the_second_of_two_archives_is_named_when_it_is_damaged(tmp_path: Path, runtime: Runtime) -> None:
    whole, cut = tar_of(tmp_path / "whole.tar", faces(1, 5)), tar_of(tmp_path / "cut.tar", faces(40, 5))
    cut.write_bytes(cut.read_bytes()[:4000])
    with pytest.raises(SourceError, match=r"cut\.tar cannot be read"):
        take(runtime, whole, cut)
