"""A camera on a real MLflow server says what it says on the bundle; a server that fails ends it properly."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import SIZE, make_bundle, pictures
from chips import detector_file, real_chips
from endpoints import Server, standing_in
from versions import registered
from videos import read, video

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError, ServiceError
from agepipe.model.bundle import read_card
from agepipe.model.imaging import Image
from agepipe.model.predictor import Predictor
from agepipe.serving import camera_session, endpoint
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.detect import yunet
from agepipe.serving.endpoint import Endpoint
from benchmarks.serving import serving

THRESHOLDS = {90: 0.85}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", sharpness=8.0, decoding="median", thresholds=THRESHOLDS).folder


@pytest.fixture
def server(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.5)
    monkeypatch.setattr(endpoint, "PAUSE", 0.05)
    with standing_in(bundle) as running:
        yield running


FACES = pictures(np.array([5, 30, 55]), SIZE, seed=3, noise=0.01)


def test_its_card_and_answers_are_those_of_the_bundle(server: Server, bundle: Path) -> None:
    remote = Endpoint(server.url)
    assert remote.card == read_card(bundle)
    found, expected = remote.predict(FACES), server.predictor.predict(FACES)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert found.years == pytest.approx(expected.years, abs=1e-4)
    assert remote.predict(FACES[:0]).probabilities.shape == (0, 4)
    assert (server.asked, remote.breaks) == (2, 0), "no face, no question"


def test_a_server_that_fails_for_a_moment_is_awaited(server: Server) -> None:
    remote = Endpoint(server.url)
    server.answer = lambda number: (503, b"busy") if number in (2, 3) else None
    assert len(remote.predict(FACES).years) == 3
    assert remote.breaks == 1


def test_a_server_that_comes_back_with_another_model_is_not_mixed_with_the_first(server: Server) -> None:
    remote = Endpoint(server.url)
    server.answer = lambda number: (503, b"restarting") if number == 2 else None
    server.digest = "b" * 64
    with pytest.raises(ServiceError, match=r"--endpoint: .* another model"):
        remote.predict(FACES)


def test_one_that_was_started_anew_between_two_frames_is_noticed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Endpoint(server.url)
    server.digest = "b" * 64
    assert len(remote.predict(FACES).years) == 3, "it is not asked before every frame"
    monkeypatch.setattr(endpoint, "CHECK_EVERY", 0.0)
    with pytest.raises(ServiceError, match=r"--endpoint: .* another model"):
        remote.predict(FACES)


def test_its_title_has_the_version_where_the_server_knows_it(server: Server) -> None:
    place = server.url.removeprefix("http://")
    assert Endpoint(server.url).title == f"aaaaaaaaaa at {place}"
    server.title = "agepipe version 3"
    assert Endpoint(server.url).title == f"agepipe version 3 at {place}"


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (400, b'{"error_code": "BAD_REQUEST"}', r"refuses \(status 400: .*BAD_REQUEST"),
        (404, b"", r"refuses \(status 404"),
        (500, b"it broke", r"does not answer \(status 500: it broke\)"),
        (200, b"<html>Hello</html>", "answers with b'<html>Hello"),
        (200, b"", "answers with b''"),
        (200, b'{"predictions": [1, 2, 3]}', "rows without 'probabilities' and 'age'"),
        (200, b'{"predictions": []}', "no list of 3 predictions"),
        (200, json.dumps({"predictions": [{"probabilities": [1.0], "age": 3}] * 3}).encode(), r"shape \(3, 1\)"),
    ],
)
def test_a_wrong_answer_is_one_sentence(server: Server, status: int, said: bytes, why: str) -> None:
    remote = Endpoint(server.url)
    server.answer = lambda number: (status, said)
    with pytest.raises(ServiceError, match=why) as caught:
        remote.predict(FACES)
    assert "\n" not in str(caught.value)
    assert "mlflow models serve" in str(caught.value)


def test_what_is_no_server_of_a_model_is_refused_at_the_start(server: Server) -> None:
    for url in ("ftp://127.0.0.1", "127.0.0.1:5000", "http://"):
        with pytest.raises(ConfigError, match="--endpoint"):
            Endpoint(url)
    with pytest.raises(ServiceError, match=r"does not answer \(.*refused"):
        Endpoint("http://127.0.0.1:9")
    server.answer = lambda number: (200, json.dumps({"predictions": [{"probabilities": [1.0], "age": 3}]}).encode())
    with pytest.raises(ServiceError, match="no card of its model"):
        Endpoint(server.url)


@pytest.fixture
def film(tmp_path: Path, shared: Path, sample_archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second of two real faces, one that moves."""
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    chips: list[Image] = [real_chips(sample_archive, step=70)[0][at] for at in (8, 1)]
    return video(tmp_path / "film.mp4", chips, frames=25)


def look(film: Path, runtime: Runtime, name: str, **model: str) -> tuple[list[dict[str, object]], list[str]]:
    """The events of a run and its notes."""
    folder = film.parent
    asked = CameraOptions(
        source=str(film), headless=True, events=folder / f"{name}.jsonl", output=folder / f"{name}.mp4", **model
    )
    notes = camera_session.run(asked, runtime).notes
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()], notes


def test_a_camera_whose_server_goes_for_good_finishes_its_files(film: Path, server: Server, runtime: Runtime) -> None:
    server.answer = lambda number: (500, b"it broke") if number > 11 else None
    with pytest.raises(ServiceError, match="does not answer"):
        look(film, runtime, "cut", endpoint=server.url)
    assert len(read(film.parent / "cut.mp4")) == 10
    assert len((film.parent / "cut.jsonl").read_text().splitlines()) == 20


@pytest.fixture
def served(bundle: Path, tracked: Runtime, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` of the champion."""
    registered(bundle, tracked)
    with serving("models:/agepipe@champion", tracked, tmp_path) as url:
        yield url


@pytest.mark.slow
def test_a_real_server_answers_as_the_camera_does_by_itself(
    served: str, film: Path, bundle: Path, runtime: Runtime, tmp_path: Path
) -> None:
    own, _ = look(film, runtime, "own", model=str(bundle))
    there, notes = look(film, runtime, "there", endpoint=served)
    assert len(own) == len(there) == 50
    assert notes == []
    for one, other in zip(own, there, strict=True):
        for exact in ("frame", "track", "range", "low", "high"):
            assert one[exact] == other[exact]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
        assert one["age"] == pytest.approx(other["age"], abs=1e-2)
    remote, predictor = Endpoint(served), Predictor.load(bundle)
    assert remote.title == f"agepipe version 1 at {served.removeprefix('http://')}"
    assert {event["model"] for event in there} == {remote.title}
    faces = pictures(np.arange(1, 60), SIZE, seed=1, noise=0.05)
    apart = np.abs(remote.predict(faces).probabilities - predictor.predict(faces).probabilities).max()
    assert apart < 1e-4
