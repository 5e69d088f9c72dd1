"""Archives by URI, from a real S3 server and from a folder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from buckets import new_bucket, served
from photographs import chips

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, SourceSettings
from agepipe.core.errors import ConfigError, SourceError, StorageError
from agepipe.data.records import Source
from agepipe.data.sources import check, fetch, fingerprint
from tasks import data


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture
def bucket(s3: str) -> str:
    return new_bucket()


def packed(tmp_path: Path) -> Path:
    chips(tmp_path / "faces", 3)
    return Path(shutil.make_archive(str(tmp_path / "faces"), "tar", tmp_path / "faces"))


@pytest.fixture
def uri(bucket: str, tmp_path: Path) -> str:
    fs, root = fsspec.url_to_fs(bucket)
    fs.put_file(str(packed(tmp_path)), f"{root}/faces.tar")
    return f"{bucket}/faces.tar"


def source(runtime: Runtime, *named: str) -> Source:
    return fingerprint(SourceSettings(data=named), runtime)


def test_an_archive_is_downloaded_once(uri: str, runtime: Runtime, tmp_path: Path) -> None:
    found = source(runtime, uri)
    (location,) = found.locations
    assert found.name == "faces"
    assert location.read_bytes() == (tmp_path / "faces.tar").read_bytes()
    os.utime(location, ns=(1, 1))
    assert source(runtime, uri) == found
    assert location.stat().st_mtime_ns == 1


def test_an_archive_that_was_replaced_is_another_source(uri: str, runtime: Runtime, tmp_path: Path) -> None:
    before = source(runtime, uri)
    fs, path = fsspec.url_to_fs(uri)
    with (tmp_path / "faces.tar").open("ab") as file:
        file.write(bytes(512))
    fs.put_file(str(tmp_path / "faces.tar"), path)
    after = source(runtime, uri)
    assert after.digest != before.digest
    assert after.locations != before.locations


def test_with_a_bucket_a_machine_downloads_only_what_it_ingests(uri: str, bucket: str, tmp_path: Path) -> None:
    one, two = (Runtime(workspace=tmp_path / name, bucket=bucket) for name in ("one", "two"))
    catalogue = data.ingest(source(one, uri), IngestSettings(size=36), one)
    assert list(one.workspace.glob("downloads/*/faces.tar"))
    again = data.ingest(source(two, uri), IngestSettings(size=36), two)
    assert again.digest == catalogue.digest
    assert again.pixels.read_bytes() == catalogue.pixels.read_bytes()
    assert not (two.workspace / "downloads").exists()


def test_with_a_bucket_faces_are_drawn_only_where_they_are_ingested(bucket: str, tmp_path: Path) -> None:
    drawn = SourceSettings(sample_count=28)
    one, two = (Runtime(workspace=tmp_path / name, bucket=bucket) for name in ("one", "two"))
    data.ingest(fingerprint(drawn, one), IngestSettings(size=36), one)
    assert (one.workspace / "samples").is_dir()
    data.ingest(fingerprint(drawn, two), IngestSettings(size=36), two)
    assert not (two.workspace / "samples").exists()


def test_a_file_uri_is_a_path(runtime: Runtime, tmp_path: Path) -> None:
    archive = packed(tmp_path)
    assert source(runtime, f"file://{archive}") == source(runtime, str(archive))
    assert source(runtime, f"file://{tmp_path / 'faces'}").locations == (tmp_path / "faces",)


def test_an_archive_that_does_not_exist_is_named(bucket: str, runtime: Runtime) -> None:
    with pytest.raises(StorageError, match=f"source: '{bucket}/none.tar' does not exist"):
        check([f"{bucket}/none.tar"])
    with pytest.raises(StorageError, match="source: 's3://no-such-bucket/"):
        check(["s3://no-such-bucket/faces.tar"])


def test_only_archives_can_be_named_by_uri(bucket: str) -> None:
    with pytest.raises(SourceError, match=f"source: '{bucket}/photos' "):
        check([f"{bucket}/photos"])
    with pytest.raises(ConfigError, match="source: 'ftp://host/"):
        check(["ftp://host/faces.tar"])


def test_a_file_that_is_no_archive_is_refused(bucket: str, runtime: Runtime) -> None:
    fs, root = fsspec.url_to_fs(bucket)
    fs.pipe_file(f"{root}/faces.tar", b"no archive")
    with pytest.raises(SourceError, match=r"faces\.tar"):
        fetch(source(runtime, f"{bucket}/faces.tar"))
