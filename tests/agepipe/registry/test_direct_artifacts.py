"""A tracking server that leaves its artifacts to its clients: they are in a real S3 server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import ACCESS, new_bucket, served
from servers import MlflowServer

from agepipe.config.runtime import Runtime
from agepipe.registry import tracking

NOTE = """
import sys
from agepipe.config.runtime import Runtime
from agepipe.core.errors import TrackingError
from agepipe.registry import tracking
try:
    with tracking.run(Runtime(tracking=sys.argv[1]), kind="train", name="two", key="l") as run:
        run.text("text", "note.txt")
except TrackingError as error:
    print(error)
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with served():
        server = MlflowServer(tmp_path / "server", artifacts=new_bucket()).start()
        yield Runtime(workspace=tmp_path / "workspace", tracking=server.address)
        server.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_artifacts_go_to_the_bucket_and_come_back_and_without_credentials_one_sentence_says_so(
    runtime: Runtime, tmp_path: Path
) -> None:
    with tracking.run(runtime, kind="train", name="one", key="k") as run:
        run.text("text", "note.txt")
    uri = tracking.client(runtime).get_run(run.run_id).info.artifact_uri
    assert uri.startswith("s3://")
    tracking.download(runtime, f"{uri}/note.txt", tmp_path)
    assert (tmp_path / "note.txt").read_text() == "text"
    said = subprocess.run(
        [sys.executable, "-c", NOTE, runtime.tracking], capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if name not in ACCESS}
        | {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)},
    ).stdout  # fmt: skip
    assert f"tracking: the artifacts of {runtime.tracking}" in said
    assert "credentials" in said
