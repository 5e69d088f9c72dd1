"""The page on a model of an MLflow server: it answers as the bundle does, and outlives the server."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from chips import detector_file
from endpoints import Server, standing_in
from pages import jpeg, scene, served
from test_server import ask, get, opened
from versions import registered

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from agepipe.model.imaging import decode, fit
from agepipe.model.predictor import Predictor
from agepipe.serving.align import align
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.detect import yunet
from agepipe.serving.detect.yunet import YuNet
from agepipe.serving.web import server as web
from benchmarks.serving import serving

SECONDS = 60


@pytest.fixture
def here(tracked: Runtime, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    monkeypatch.setattr("agepipe.serving.web.session.PAUSE", 0.2)
    return tracked


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "one").folder


@pytest.fixture
def server(bundle: Path) -> Iterator[Server]:
    with standing_in(bundle) as running:
        running.title = "agepipe version 1"
        yield running


def until_answered(address: str) -> dict[str, object]:
    """What is said of a picture once there is a model, as a page asks: again and again on one connection."""
    limit = time.monotonic() + SECONDS
    with opened(address) as socket:
        while (answer := ask(socket, jpeg(scene()))).get("error"):
            assert time.monotonic() < limit, answer
            time.sleep(0.1)
    return answer


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_server_that_is_down_at_the_start_is_told_and_used_when_it_is_there(here: Runtime, bundle: Path) -> None:
    with standing_in(bundle) as gone:
        url = gone.url
    shared = web.prepare(CameraOptions(endpoint=url), here)
    with served(shared) as address, opened(address) as socket:
        status = json.loads(get(address, "/status")[1])
        assert status["model"] is None
        assert f"{url}/invocations does not answer" in status["problem"]
        assert "mlflow models serve" in ask(socket, jpeg(scene()))["error"]
        with standing_in(bundle, port_of(url)):
            answer = until_answered(address)
            assert ask(socket, jpeg(scene()))["faces"], "the connection that was told of it goes on too"
    assert answer["model"] == f"aaaaaaaaaa at 127.0.0.1:{port_of(url)}"


def test_one_that_goes_away_is_told_at_once_and_its_next_model_followed(
    here: Runtime, server: Server, tmp_path: Path
) -> None:
    shared = web.prepare(CameraOptions(endpoint=server.url), here)
    with served(shared) as address, opened(address) as socket:
        assert ask(socket, jpeg(scene()))["model"] == f"agepipe version 1 at 127.0.0.1:{port_of(server.url)}"
        server.answer = lambda number: (500, b"it broke")
        start = time.monotonic()
        assert "does not answer (status 500: it broke)" in ask(socket, jpeg(scene()))["error"]
        assert time.monotonic() - start < 5, "others wait for the same thread"
        assert "status 500" in json.loads(get(address, "/status")[1])["problem"]
        server.predictor = Predictor.load(make_bundle(tmp_path / "two", sharpness=20.0).folder)
        server.digest, server.title = "b" * 64, "agepipe version 2"
        server.answer = lambda number: None
        until_answered(address)
        answer = ask(socket, jpeg(scene()))
        assert (answer["model"], len(answer["faces"])) == (f"agepipe version 2 at 127.0.0.1:{port_of(server.url)}", 1)
    assert shared.notes() == ["The server of the model was lost 1 times."]


def test_no_address_and_a_model_beside_it_are_refused_at_once(here: Runtime, bundle: Path) -> None:
    with pytest.raises(ConfigError, match="--endpoint: 'localhost:5000'"):
        web.prepare(CameraOptions(endpoint="localhost:5000"), here)
    with pytest.raises(ConfigError, match="leave one of the two out"):
        web.prepare(CameraOptions(endpoint="http://127.0.0.1:9", model=str(bundle)), here)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server_answers_dies_and_comes_back_with_the_next_version(
    here: Runtime, bundle: Path, shared: Path, tmp_path: Path
) -> None:
    two = make_bundle(tmp_path / "two", sharpness=20.0).folder
    assert [registered(folder, here) for folder in (bundle, two)] == [1, 2]
    picture = jpeg(scene())
    with ExitStack() as page:
        with serving("models:/agepipe@champion", here, tmp_path) as url:
            address = page.enter_context(served(web.prepare(CameraOptions(endpoint=url), here)))
            with opened(address, "?apart=true") as socket:
                answer = ask(socket, picture)
        assert answer["model"] == f"agepipe version 1 at 127.0.0.1:{port_of(url)}"
        (face,) = answer["faces"]
        probability, age = said(bundle, picture, shared)
        assert face["probability"] == pytest.approx(probability, abs=1e-4)
        assert face["age"] == pytest.approx(age, abs=0.06), "it is sent with one decimal"
        with opened(address) as socket:
            assert "does not answer" in ask(socket, picture)["error"]
        assert get(address)[0] == 200
        with serving("models:/agepipe/2", here, tmp_path, port_of(url)):
            assert until_answered(address)["model"] == f"agepipe version 2 at 127.0.0.1:{port_of(url)}"


def said(bundle: Path, picture: bytes, shared: Path) -> tuple[float, float]:
    """Probability and age that the bundle itself says of the face of a picture."""
    image, predictor = decode(picture), Predictor.load(bundle)
    (face,) = YuNet(detector_file(shared)).search(image)
    found = predictor.predict(fit(align(image, face.landmarks), predictor.card.size)[None])
    return float(np.max(found.probabilities)), float(found.years[0])
