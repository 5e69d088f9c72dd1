"""The page's server, for real: pictures over WebSockets, what it refuses, and a model that changes while it runs."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bundles import make_bundle
from chips import detector_file
from pages import jpeg, scene, served
from photographs import png_bomb
from websockets import ConnectionClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.model.bundle import read_card
from agepipe.model.bundle_files import write_card
from agepipe.model.imaging import fit
from agepipe.model.predictor import Predictor
from agepipe.serving.align import align
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.deploy import folder_of, switch
from agepipe.serving.detect import yunet
from agepipe.serving.detect.yunet import YuNet
from agepipe.serving.web import server as web
from agepipe.serving.web.session import MAX_PICTURE


@pytest.fixture
def here(runtime: Runtime, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    return runtime


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "brightness").folder


@pytest.fixture
def server(here: Runtime, bundle: Path) -> Iterator[str]:
    with served(web.prepare(CameraOptions(model=str(bundle)), here)) as address:
        yield address


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No face is forgotten because this machine is busy."""
    monkeypatch.setattr("agepipe.serving.tracker.PATIENCE", 60.0)


def opened(address: str, query: str = "", origin: str = "", **headers: str) -> ClientConnection:
    return connect(
        f"ws://{address}/faces{query}", origin=origin or f"http://{address}",  # type: ignore[arg-type]
        additional_headers=headers, compression=None, proxy=None,
    )  # fmt: skip


def ask(socket: ClientConnection, message: bytes | str) -> dict[str, Any]:
    socket.send(message)
    found: dict[str, Any] = json.loads(socket.recv(timeout=30))
    return found


def get(address: str, path: str = "/", **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_it_says_what_the_predictor_says_of_the_same_face(server: str, bundle: Path, shared: Path) -> None:
    picture = scene()
    data = jpeg(picture)
    with opened(server, "?apart=true") as socket:
        answer = ask(socket, data)
    assert (answer["model"], answer["width"], answer["height"]) == ("brightness", 640, 480)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    (face,) = YuNet(detector_file(shared)).search(decoded)  # type: ignore[arg-type]
    predictor = Predictor.load(bundle)
    expected = predictor.predict(fit(align(decoded, face.landmarks), predictor.card.size)[None])  # type: ignore[arg-type]
    (found,) = answer["faces"]
    best = int(expected.probabilities[0].argmax())
    assert found["range"] == predictor.card.ranges.words[best]
    assert found["probability"] == pytest.approx(float(expected.probabilities[0, best]), abs=1e-4)
    assert found["age"] == pytest.approx(float(expected.years[0]), abs=0.06)
    assert found["box"] == pytest.approx(face.box.tolist(), abs=0.1)
    assert found["set"] is None


def test_an_unsure_model_tells_its_set(here: Runtime, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "unsure", sharpness=0.1).folder
    write_card(folder, read_card(folder).model_copy(update={"thresholds": {90: 0.6}}))
    with served(web.prepare(CameraOptions(model=str(folder)), here)) as address, opened(address) as socket:
        (face,) = ask(socket, jpeg(scene()))["faces"]
    assert face["probability"] < 0.5
    ranges = read_card(folder).ranges
    assert face["set"] in {ranges.span_words(0, 2), ranges.span_words(1, 3), ranges.span_words(0, 3)}


def test_faces_are_followed_in_each_connection_on_its_own(server: str, patient: None) -> None:
    with opened(server) as one, opened(server) as other:
        tracks = [ask(one, jpeg(scene(at)))["faces"][0]["track"] for at in range(4)]
        assert tracks == [1] * 4
        assert ask(other, jpeg(scene()))["faces"][0]["track"] == 1
    with opened(server, "?apart=true") as socket:
        assert [ask(socket, jpeg(scene(at)))["faces"][0]["track"] for at in range(3)] == [1, 2, 3]


def test_rubbish_is_answered_by_a_sentence_and_the_connection_goes_on(server: str) -> None:
    bad: list[tuple[bytes | str, str]] = [
        ("hello", "Text was sent, but a picture"),
        ("{}", "Text was sent, but a picture"),
        (b"", "not an image"),
        (b"\x00" * 1000, "not an image"),
        (b"no picture at all, a text file named .jpg", "not an image"),
        (jpeg(scene())[:5000], "truncated"),
        (png_bomb(20_000), "too large"),
    ]
    with opened(server) as socket:
        for message, why in bad:
            answer = ask(socket, message)
            assert list(answer) == ["error"]
            assert why in answer["error"]
        assert len(ask(socket, jpeg(scene()))["faces"]) == 1


def test_many_faces_are_all_told(server: str) -> None:
    with opened(server, "?apart=true") as socket:
        answer = ask(socket, jpeg(np.tile(scene()[100:380, 180:460], (6, 5, 1))))
    assert len(answer["faces"]) == 30


def test_a_picture_over_the_limit_is_refused(server: str) -> None:
    with opened(server) as socket:
        answer = ask(socket, b"\xff\xd8\xff" + bytes(MAX_PICTURE))
        assert answer == {"error": "The picture has 4.0 MB, at most 4 MB are taken; make it smaller."}
        assert len(ask(socket, jpeg(scene()))["faces"]) == 1


def test_one_that_is_larger_by_far_ends_its_connection_and_no_other(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(server) as good:
        with opened(server) as socket, pytest.raises(ConnectionClosed):
            ask(socket, bytes(web.MAX_MESSAGE + 1))
        caplog.clear()  # the client's own complaint that the connection broke while it was sending
        assert len(ask(good, jpeg(scene()))["faces"]) == 1


def test_other_sites_are_refused(server: str) -> None:
    port = server.partition(":")[2]
    for origin in ("http://evil.example", "null", f"http://localhost:{port}", "http://127.0.0.1:1", "http://[::1"):
        with pytest.raises(InvalidStatus) as caught:
            opened(server, origin=origin)
        assert caught.value.response.status_code == 403
        assert b"is not this server" in caught.value.response.body
    with pytest.raises(InvalidStatus):
        connect(f"ws://{server}/faces", proxy=None)  # no origin at all


def test_a_foreign_name_is_refused_whatever_it_points_to(server: str) -> None:
    for host in ("evil.example", f"evil.example:{server.partition(':')[2]}", "127.0.0.1.evil.example", "[::1"):
        code, text, _ = get(server, Host=host)
        assert (code, "is no name of this machine" in text) == (403, True)
        assert get(server, "/status", Host=host)[0] == 403
    for host in (server, "localhost", "LOCALHOST:8000", "192.168.1.5:8000", "[::1]:8000"):
        assert get(server, Host=host)[0] == 200


def test_of_a_hundred_connections_the_surplus_is_told_why(server: str) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(opened(server)) for _ in range(100)]
        refused = 0
        for socket in sockets[web.MAX_CONNECTIONS :]:
            assert "16 pages are open already" in json.loads(socket.recv(timeout=30))["error"]
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(timeout=30)
            assert caught.value.rcvd is not None
            refused += (caught.value.rcvd.code, "try again later" in caught.value.rcvd.reason) == (1013, True)
        assert refused == 84
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda socket: ask(socket, jpeg(scene())), sockets[: web.MAX_CONNECTIONS]))
        assert [len(answer["faces"]) for answer in answers] == [1] * 16
    with opened(server) as socket:
        assert len(ask(socket, jpeg(scene()))["faces"]) == 1


def test_pictures_that_come_too_fast_wait(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RATE", 10.0)
    with opened(server) as socket:
        start = time.monotonic()
        for _ in range(6):
            socket.send("x")
        for _ in range(6):
            socket.recv(timeout=30)
        assert time.monotonic() - start >= 0.5


def test_a_silent_connection_gives_its_place_back(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "IDLE", 0.2)
    with opened(server) as socket:
        assert "Nothing was sent" in json.loads(socket.recv(timeout=30))["error"]
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_a_new_model_answers_from_the_next_frame_in_every_connection(here: Runtime, patient: None) -> None:
    one, two = (make_bundle(folder_of(here) / f"agepipe-{at}-x", sharpness=60.0 / at).folder for at in (1, 2))
    switch(one, "agepipe", 1, here)
    with (
        served(web.prepare(CameraOptions(), here)) as address,
        opened(address) as first,
        opened(address) as second,
    ):
        assert {ask(each, jpeg(scene()))["model"] for each in (first, second)} == {"agepipe version 1"}
        switch(two, "agepipe", 2, here)
        limit = time.monotonic() + 30
        while ask(first, jpeg(scene()))["model"] == "agepipe version 1" and time.monotonic() < limit:
            time.sleep(0.02)
        for each in (first, second):
            answer = ask(each, jpeg(scene()))
            assert (answer["model"], answer["faces"][0]["track"]) == ("agepipe version 2", 2), "averages start anew"
        assert json.loads(get(address, "/status")[1]) == {"model": "agepipe version 2", "problem": ""}


def test_without_a_model_it_says_how_to_get_one_and_goes_on_when_there_is(
    tracked: Runtime, here: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agepipe.serving.web.session.PAUSE", 0.2)
    with served(web.prepare(CameraOptions(), tracked)) as address, opened(address) as socket:
        status = json.loads(get(address, "/status")[1])
        assert status["model"] is None
        assert "agepipe run sample" in status["problem"]
        assert "agepipe run sample" in ask(socket, jpeg(scene()))["error"]
        switch(make_bundle(folder_of(tracked) / "agepipe-1-x").folder, "agepipe", 1, tracked)
        limit = time.monotonic() + 30
        while (answer := ask(socket, jpeg(scene()))).get("error") and time.monotonic() < limit:
            time.sleep(0.1)
        assert (answer["model"], len(answer["faces"])) == ("agepipe version 1", 1)


def test_a_named_model_that_is_not_there_is_refused_at_once(tracked: Runtime, here: Runtime) -> None:
    with pytest.raises(ModelError, match="agepipe run sample"):
        web.prepare(CameraOptions(model="champion"), tracked)


def test_nothing_is_written(server: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with opened(server) as socket:
        for at in range(5):
            ask(socket, jpeg(scene(at)))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_pages_files_load_nothing_from_elsewhere(server: str) -> None:
    code, text, headers = get(server)
    assert code == 200
    assert "No picture is stored" in text
    assert headers["content-security-policy"].startswith("default-src 'self';")
    for name in ("page.js", "draw.js", "link.js", "page.css", "icon.svg"):
        code, part, headers = get(server, f"/{name}")
        assert (code, headers["cache-control"]) == (200, "no-store")
        text += part
    foreign = [word for word in text.split() if "//" in word and not word.startswith(("//", '"//'))]
    assert [word for word in foreign if "www.w3.org" not in word and "${location.host}" not in word] == []
    assert get(server, "/../web.py")[0] == 404
    assert get(server, "/%2e%2e/web.py")[0] == 404
    assert get(server, "/docs")[0] == 404
