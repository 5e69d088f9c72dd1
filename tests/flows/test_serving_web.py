"""The command `web`, as its user meets it: a real process that serves, refuses in one sentence, and ends by Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles import make_bundle
from chips import detector_file
from endpoints import standing_in
from pages import jpeg, scene
from websockets.sync.client import connect

from agepipe.core.ports import bound
from agepipe.serving.detect import yunet

COMMAND = """
import sys
from flows.cli import main
try:
    main()
except SystemExit as end:
    if end.code:
        raise
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "prefect", "mlflow"}))
"""


@pytest.fixture(autouse=True)
def detector(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))


@contextmanager
def command(*words: object, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "web", *map(str, words)],
        cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_serves_a_bundle_without_torch_prefect_or_mlflow_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    with command("--model", "bundle", "--port", 0, cwd=tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("bundle is at http://127.0.0.1:"), process.stderr and process.stderr.read()
        address = line.split()[3].rstrip(",").removeprefix("http://")
        with connect(f"ws://{address}/faces", origin=f"http://{address}", proxy=None) as socket:  # type: ignore[arg-type]
            socket.send(jpeg(scene()))
            assert len(json.loads(socket.recv(timeout=60))["faces"]) == 1
            process.send_signal(signal.SIGINT)  # while somebody looks
            said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert said.splitlines() == ["Ended.", "loaded:"]
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}


def test_without_a_model_it_says_how_to_get_one_and_serves_the_page(tmp_path: Path) -> None:
    with command("--port", 0, cwd=tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("No model yet is at"), process.stderr and process.stderr.read()
        address = line.split()[5].rstrip(",")
        with urllib.request.urlopen(f"{address}/status", timeout=30) as answer:
            assert "agepipe run sample" in json.loads(answer.read())["problem"]
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "agepipe run sample" in complaints
    assert "Traceback" not in complaints


def test_it_asks_a_server_instead_without_torch_prefect_or_mlflow(tmp_path: Path) -> None:
    with (
        standing_in(make_bundle(tmp_path / "bundle").folder) as remote,
        command("--endpoint", remote.url, "--port", 0, cwd=tmp_path) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"aaaaaaaaaa at {remote.url.removeprefix('http://')} is at http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert said.splitlines() == ["Ended.", "loaded:"]


@pytest.mark.slow
def test_it_refuses_in_one_sentence(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    with bound("--port", "127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        for words, why in (
            (("--model", "bundle", "--port", port), f"--port: port {port} is in use; give another"),
            (("--model", "bundle", "--host", "203.0.113.7"), "--host: '203.0.113.7'"),
            (("--model", "bundle/none", "--port", 0), "bundle/none"),
            (("--endpoint", "localhost:5000", "--port", 0), "--endpoint: 'localhost:5000'"),
            (("--endpoint", "http://127.0.0.1:9", "--model", "bundle", "--port", 0), "leave one of the two out"),
        ):
            with command(*words, cwd=tmp_path) as process:
                said, complaints = process.communicate(timeout=120)
            assert (process.returncode, said) == (1, "")
            assert why in complaints
            assert complaints.splitlines()[-1].startswith("error: ")
            assert "Traceback" not in complaints
