"""The camera as a deployed flow that is cancelled while it looks; `test_pipeline.py` has it after the pipeline."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_bundle
from videos import read, video

from agepipe.config.runtime import Runtime
from agepipe.model.imaging import Image
from agepipe.serving.detect.yunet import YuNet
from flows import access, deployments, services

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker(prefect_server: None, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The deployments of prefect.yaml, and a worker that runs them."""
    from prefect.settings import PREFECT_API_URL

    api_url = str(PREFECT_API_URL.value())
    monkeypatch.chdir(ROOT)
    access.made(runtime)
    services.make_pool(runtime, api_url)
    deployments.deploy(runtime, api_url)
    words = ["worker", "start", "--pool", services.POOL, "--type", "process"]
    environ = {**services.environ(runtime, api_url), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (runtime.workspace / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("prefect"), *words], env=environ, stdout=log, stderr=log
        )
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
    worker: None, runtime: Runtime, drawn_faces: list[Image], detector: YuNet, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    frames, log = 3000, runtime.workspace / "worker.log"
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
