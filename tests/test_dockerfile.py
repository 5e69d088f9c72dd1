"""The images of the `Dockerfile`, built step by step in chroots of Debian; no container engine is needed."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import containers
import pytest
from bundles import make_bundle
from containers import ROOT, Image
from pages import jpeg, scene
from websockets.sync.client import connect

from agepipe.core.ports import bound

TOKEN = "a-token-of-the-page-of-a-container"


def test_no_file_reaches_the_images_that_the_context_leaves_out() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    copied = {
        source
        for steps in containers.stages().values()
        for word, rest in steps
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied == {line.removeprefix("!") for line in lines if line.startswith("!")}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("images")
    yield containers.build("serve", folder)
    shutil.rmtree(folder)  # a gigabyte or two


@contextmanager
def _served(image: Image, *words: str) -> Iterator[str]:
    """The image's own command at a free port, once its health check succeeds; gives the address."""
    with bound("--port", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    process = image.start(*image.command, "--port", str(port), *words, AGEPIPE_WEB_TOKEN=TOKEN)
    try:
        deadline = time.monotonic() + 90
        while image.ended(*_probe(image, port))[0]:
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield f"127.0.0.1:{port}"
    finally:
        containers.end(process)


def _probe(image: Image, port: int) -> list[str]:
    """The image's health check, for another port than its own."""
    return [word.replace(":8000/", f":{port}/") for word in image.probe]


@pytest.mark.slow
def test_the_image_that_serves_has_the_page_and_neither_torch_nor_a_shell_of_root(image: Image, tmp_path: Path) -> None:
    assert image.run("id", "-un").strip() == "agepipe"
    assert int(subprocess.check_output(["du", "--summarize", "--block-size=1M", image.root]).split()[0]) < 1000
    absent = "import importlib.util as u; print(*(n for n in ('torch','mlflow','prefect','pip') if u.find_spec(n)))"
    assert image.run("/opt/agepipe/bin/python", "-c", absent).strip() == ""
    assert image.ended(*_probe(image, 9))[0] != 0, "nothing serves there"
    bundle = make_bundle(tmp_path / "bundle").folder
    shutil.copytree(bundle, image.root / "work" / "bundle")
    with _served(image, "--model", "bundle") as address:
        with urllib.request.urlopen(f"http://{address}/health", timeout=30) as answer:
            assert json.load(answer)["model"] == "bundle"
        with connect(
            f"ws://{address}/faces", origin=f"http://{address}", proxy=None,  # type: ignore[arg-type]
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
        ) as socket:  # fmt: skip
            socket.send(jpeg(scene()))
            assert len(json.loads(socket.recv(timeout=60))["faces"]) == 1


@pytest.mark.slow
def test_the_image_that_serves_predicts_a_folder(image: Image, tmp_path: Path) -> None:
    folder = image.root / "work" / "photographs"
    folder.mkdir(mode=0o755)
    (folder / "one.jpg").write_bytes(jpeg(scene()))
    shutil.copytree(make_bundle(tmp_path / "model").folder, image.root / "work" / "model")
    said = image.run("agepipe", "predict", "photographs", "--model", "model", "--output", "ages.csv")
    assert "1 face" in said
    assert len((image.root / "work" / "ages.csv").read_text().splitlines()) == 2
