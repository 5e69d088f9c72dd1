"""Machines that share only a bucket and the tracking server; each is a process with its own home and working folder."""

import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from buckets import ACCESS, new_bucket, served
from commands import AGEPIPE, environ, free_port
from servers import MlflowServer

from agepipe.config.runtime import Runtime
from agepipe.registry import tracking

RUN = (
    "run", "sample", "ingest.size=36", "learn.size=32", "learn.network=shufflenet_v2_x0_5", "learn.batch=32",
    "learn.epochs=1", "search.grid={lr=[0.003,0.01]}", "search.folds=2", "final.epochs=2", "evaluate.draws=200",
    "--device", "cpu", "--workers", "1", "--threads", "1",
)  # fmt: skip
COMPUTED = ("trial", "train", "evaluate", "compare")
"""Kinds of MLflow runs that stand for work."""
SOON = 120.0
"""Seconds within which a command must refuse a bucket, also on a busy machine; S3 is asked five times, with pauses."""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with served() as address:
        yield address


class Machine:
    """A home and a working folder, from which commands are given."""

    def __init__(self, folder: Path, uri: str, tracking_uri: str = "") -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.variables = {**environ(), "HOME": str(self.home), "AGEPIPE_WORKSPACE": uri}
        self.variables |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600"}
        if tracking_uri:
            self.variables["AGEPIPE_TRACKING"] = tracking_uri

    def agepipe(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AGEPIPE, *words], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=900,
            check=False,
        )  # fmt: skip

    def does(self, *words: str) -> str:
        done = self.agepipe(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def results(self, kind: str, file: str) -> dict[str, bytes]:
        """A file of each finished result of a kind, by the result's name."""
        found = self.home.glob(f".cache/agepipe/*/{kind}/[!.]*/{file}")
        return {path.parent.name: path.read_bytes() for path in found}


def archive(drawn: Path, bucket: str) -> str:
    """Photographs as an archive in a bucket."""
    packed = drawn.with_name("faces.tar")
    with tarfile.open(packed, "w") as tar:
        tar.add(drawn, "faces")
    fs, root = fsspec.url_to_fs(bucket)
    fs.put_file(str(packed), f"{root}/faces.tar")
    return f"{bucket}/faces.tar"


def work(server: MlflowServer) -> Counter[str]:
    """How often each kind of work was done, on all machines."""
    runtime = Runtime(tracking=server.address)
    found = tracking.client(runtime).search_runs([tracking.prepare(runtime)], max_results=1000)
    return Counter(kind for run in found if (kind := run.data.tags["agepipe.kind"]) in COMPUTED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_second_machine_computes_nothing(s3: str, server: MlflowServer, drawn: Path, tmp_path: Path) -> None:
    uri = new_bucket()
    one, two, three = (Machine(tmp_path / name, uri, server.address) for name in ("one", "two", "three"))
    run = (*RUN, "--data", archive(drawn, uri))
    said = one.does(*run)
    done = work(server)
    assert done == {"trial": 4, "train": 1, "evaluate": 1}
    again = two.does(*run)
    assert work(server) == done
    assert figures(again) == figures(said)
    assert two.results("evaluations", "metrics.json") == one.results("evaluations", "metrics.json") != {}
    assert two.results("models", "model.onnx").items() >= one.results("models", "model.onnx").items()
    assert not list(two.home.glob(".cache/agepipe/*/downloads/*/faces.tar"))

    one.does(*run, "final.epochs=1")  # evaluated against the champion, whose evaluation a new machine must find
    done = work(server)
    assert done == {"trial": 4, "train": 2, "evaluate": 2}
    three.does(*run, "final.epochs=1")
    assert work(server) == done


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_machine_with_nothing_evaluates_and_compares(
    s3: str, server: MlflowServer, drawn: Path, tmp_path: Path
) -> None:
    uri = new_bucket()
    one, two = (Machine(tmp_path / name, uri, server.address) for name in ("one", "two"))
    data = archive(drawn, uri)
    for epochs in (1, 2):
        one.does(*RUN, "--data", data, "search.grid={}", f"final.epochs={epochs}")
    assert figures(two.does("evaluate", "1"))  # with other draws than those of the run, so it is computed
    done = work(server)
    assert figures(one.does("evaluate", "1"))
    assert work(server) == done
    assert one.results("evaluations", "metrics.json").items() >= two.results("evaluations", "metrics.json").items()
    one.does("compare", "1", "2")
    done = work(server)
    two.does("compare", "1", "2")
    assert work(server) == done
    assert two.results("comparisons", "comparison.json") == one.results("comparisons", "comparison.json") != {}


def figures(said: str) -> list[str]:
    """The table of figures, as a command prints it."""
    lines = [line for line in said.splitlines() if line.startswith("│")]
    assert lines
    return lines


def refusal(machine: Machine, *words: str) -> str:
    begin = time.monotonic()
    done = machine.agepipe(*words)
    assert time.monotonic() - begin < SOON
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named(s3: str, tmp_path: Path) -> None:
    said = refusal(Machine(tmp_path, "s3://no-such-bucket/team"), "run", "sample")
    assert "workspace: 's3://no-such-bucket/team' does not exist" in said


@pytest.mark.slow
def test_an_archive_that_does_not_exist_is_named(s3: str, tmp_path: Path) -> None:
    bucket = new_bucket()
    said = refusal(Machine(tmp_path, str(tmp_path / "work")), "audit", f"{bucket}/faces.tar")
    assert f"source: '{bucket}/faces.tar' does not exist" in said


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "s3://bucket/team")
    machine.variables |= {**ACCESS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    said = refusal(machine, "audit", "sample")
    assert "workspace: 's3://bucket/team' does not answer" in said


@pytest.mark.slow
def test_missing_credentials_are_named(s3: str, tmp_path: Path) -> None:
    bucket = new_bucket()
    machine = Machine(tmp_path, bucket)
    for name in ACCESS:
        del machine.variables[name]
    machine.variables["AWS_EC2_METADATA_DISABLED"] = "true"
    assert f"workspace: '{bucket}' may not be used with these credentials" in refusal(machine, "audit", "sample")


def wrong(address: str, machine: Machine) -> str:
    """What is said to keys that the server does not know; it otherwise takes any."""
    import requests

    requests.post(f"{address}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        return refusal(machine, "audit", "sample")
    finally:
        requests.post(f"{address}/moto-api/reset-auth", data=b"inf", timeout=10)


@pytest.mark.slow
def test_wrong_credentials_are_named(s3: str, tmp_path: Path) -> None:
    bucket = new_bucket()
    said = wrong(s3, Machine(tmp_path, bucket))
    assert f"workspace: '{bucket}' may not be used with these credentials" in said
