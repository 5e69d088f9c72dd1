"""The camera at the end of the whole pipeline, and as a deployed flow that is cancelled while it looks."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from chips import detector_file
from videos import read, video

from agepipe.config.runtime import Where
from agepipe.data.sample import source
from agepipe.model.decoding import decide
from agepipe.model.imaging import Image, decode, fit
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup
from agepipe.serving import camera_session
from agepipe.serving.align import align
from agepipe.serving.deploy import deploy
from agepipe.serving.detect import yunet
from agepipe.serving.detect.detector import Detector
from agepipe.serving.sources import opened
from flows import access, deployments, services
from flows.result import PipelineResult

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def drawn_faces() -> list[Image]:
    """Two of the sample's drawn faces, of an adult and of a child."""
    chips = [chip for chip in source.plan(40, 7) if chip.quality is None]
    wanted = [next(chip for chip in chips if 25 <= chip.age <= 45), next(chip for chip in chips if chip.age <= 14)]
    return [decode(source.encoded(chip, 7)) for chip in wanted]


@pytest.fixture
def detector(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    return Detector(detector_file(shared))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_photographs_to_a_range_on_the_screen_with_no_hand(
    first: PipelineResult, home: Where, drawn_faces: list[Image], detector: Detector, tmp_path: Path
) -> None:
    """Pipeline, registry, deployment, camera; what the camera says first of each face is what the predictor says."""
    film = video(tmp_path / "film.mp4", drawn_faces, frames=12)
    deployed = deploy("champion", home, first.registered.name)
    assert deployed.digest == first.model.digest
    asked = camera_session.Asked(
        source=str(film), headless=True, output=tmp_path / "out.mp4", events=tmp_path / "out.jsonl",
        name=first.registered.name,
    )  # fmt: skip
    done = camera_session.run(asked, home)
    assert (done.frames, done.people, done.models) == (12, {1, 2}, [deployed.title])
    assert len(read(tmp_path / "out.mp4")) == 12
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(events) == 24, "both drawn faces are found in every frame"
    predictor = Predictor.load(lookup.resolve("champion", home, first.registered.name).folder)
    frame = next(iter(opened(str(film)).frames())).image
    chips = [fit(align(frame, face.landmarks), predictor.card.size) for face in detector.find(frame, 320)]
    expected = predictor.predict(np.stack(chips))
    ranges, labels = predictor.card.ranges, decide(expected.probabilities, predictor.card.decoding)
    start = [event for event in events if event["frame"] == 0]
    assert [event["range"] for event in start] == [ranges.words[label] for label in labels]
    assert [event["age"] for event in start] == pytest.approx(expected.years.tolist(), abs=1e-3)
    assert [(event["low"], event["high"]) for event in start] == predictor.card.spans(expected.probabilities)


@pytest.fixture
def worker(prefect_server: None, where: Where, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The deployments of prefect.yaml, and a worker that runs them."""
    from prefect.settings import PREFECT_API_URL

    api_url = str(PREFECT_API_URL.value())
    monkeypatch.chdir(ROOT)
    access.made(where)
    services.make_pool(where, api_url)
    deployments.deploy(where, api_url)
    words = ["worker", "start", "--pool", services.POOL, "--type", "process"]
    with (where.workspace / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("prefect"), *words], env=services.environ(where, api_url), stdout=log,
            stderr=log,
        )  # fmt: skip
    yield
    process.terminate()
    process.wait(60)


def wait(reached: object, seconds: float, log: Path) -> None:
    limit = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < limit, log.read_text(encoding="utf-8")[-4000:]
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_deployed_camera_that_is_cancelled_finishes_its_files_and_its_artifact(
    worker: None, where: Where, drawn_faces: list[Image], detector: Detector, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    frames, log = 3000, where.workspace / "worker.log"
    film = video(tmp_path / "long.mp4", drawn_faces[1:], frames=frames)
    asked = {
        "source": str(film), "model": str(make_bundle(tmp_path / "bundle").folder), "output": str(tmp_path / "out.mp4"),
        "events": str(tmp_path / "out.jsonl"),
    }  # fmt: skip
    draft = tmp_path / ".out.partial.mp4"
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("camera/camera")
        run = client.create_flow_run_from_deployment(deployment.id, parameters=asked)
        wait(lambda: draft.exists() and draft.stat().st_size > 100_000, 240, log)
        client.set_flow_run_state(run.id, Cancelling())
        wait(lambda: client.read_flow_run(run.id).state.name == "Cancelled", 120, log)
        wait(lambda: not draft.exists(), 30, log)
        artifacts = [item for item in client.read_artifacts() if item.flow_run_id == run.id]
    written = len(read(tmp_path / "out.mp4"))
    assert 0 < written < frames
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert 0 < events[-1]["frame"] <= written
    (artifact,) = [item for item in artifacts if item.key == "camera"]
    assert "data:image/jpeg;base64," in str(artifact.data)
    assert "| model | bundle |" in str(artifact.data)
