"""The page behind nginx, configured as `docs/web.md` says: https, a token, two servers, and a change of the model."""

import json
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles import make_bundle
from chips import detector_file
from pages import jpeg, scene, served
from websockets.sync.client import connect

from agepipe.config.runtime import Runtime
from agepipe.core.ports import bound
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.deploy import folder_of, switch
from agepipe.serving.detect import yunet
from agepipe.serving.web import server as web
from agepipe.serving.web.token_check import COOKIE

DOCUMENT = Path(__file__).parents[3] / "docs" / "web.md"
TOKEN = "a-token-that-nobody-guesses"
PAGES = 6
"""Open pages; nginx gives every other one to each server."""
CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream pages {{ {servers} }}
    server {{
        listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/page.pem; ssl_certificate_key {folder}/page.key;
        {location}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, *addresses: str) -> Iterator[str]:
    """A proxy that serves these by https; gives its `127.0.0.1:PORT`."""
    found = re.search(r"```nginx\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    location, changed = re.subn(r"proxy_pass \S+;", "proxy_pass http://pages;", found[1])
    assert changed == 1
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "page.key", "-out", folder / "page.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with bound("--port", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    servers = " ".join(f"server {address};" for address in addresses)
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, servers=servers, location=location))
    process = subprocess.Popen(["nginx", "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    try:
        limit = time.monotonic() + 30
        while not (folder / "nginx.pid").exists():
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


class Page(threading.Thread):
    """An open page that sends pictures until it is told to end."""

    def __init__(self, address: str, trust: ssl.SSLContext) -> None:
        super().__init__()
        self._address, self._trust = address, trust
        self.end = threading.Event()
        self.sent, self.answers = 0, list[dict[str, object]]()

    def run(self) -> None:
        with connect(
            f"wss://{self._address}/faces", origin=f"https://{self._address}", proxy=None, ssl=self._trust,  # type: ignore[arg-type]
            additional_headers={"Cookie": f"{COOKIE}={TOKEN}"},
        ) as socket:  # fmt: skip
            picture = jpeg(scene())
            while not self.end.is_set():
                socket.send(picture)
                self.sent += 1
                self.answers.append(json.loads(socket.recv(timeout=60)))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("nginx") and shutil.which("openssl")), reason="nginx or openssl is not installed")
def test_two_servers_change_to_a_new_model_and_no_picture_is_lost(
    runtime: Runtime, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    one, two = (make_bundle(folder_of(runtime) / f"agepipe-{at}-x", sharpness=60.0 / at).folder for at in (1, 2))
    switch(one, "agepipe", 1, runtime)
    first, second = (web.prepare(CameraOptions(), runtime) for _ in range(2))
    with (
        served(first, token=TOKEN) as left,
        served(second, token=TOKEN) as right,
        nginx(tmp_path, left, right) as address,
    ):
        trust = ssl.create_default_context(cafile=str(tmp_path / "page.pem"))
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trust), urllib.request.HTTPCookieProcessor()
        )
        with opener.open(f"https://{address}/?token={TOKEN}", timeout=30) as page:
            assert (page.status, page.url) == (200, f"https://{address}/")
            assert b"<title>" in page.read()
        pages = [Page(address, trust) for _ in range(PAGES)]
        for each in pages:
            each.start()
        wait(lambda: all(len(each.answers) > 2 for each in pages))
        switch(two, "agepipe", 2, runtime)
        wait(lambda: all(each.answers[-1].get("model") == "agepipe version 2" for each in pages))
        for each in pages:
            each.end.set()
        for each in pages:
            each.join(60)
    for each in pages:
        assert len(each.answers) == each.sent, "each picture was answered"
        models = [str(answer.get("model", answer)) for answer in each.answers]
        assert models == sorted(models)
        assert set(models) == {"agepipe version 1", "agepipe version 2"}
    assert {first.status()["model"], second.status()["model"]} == {"agepipe version 2"}


def wait(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)
