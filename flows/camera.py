"""A camera started from Prefect: on a webcam, stream, video or folder that the worker can see."""

from pathlib import Path

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.serving.camera_session import CameraOptions
from flows.beginning import begin
from tasks.camera import Looked
from tasks.camera import camera as look


@flow(name="camera", flow_run_name="camera {source}", on_running=[begin])
def camera(
    source: str = "0",
    model: str = "",
    endpoint: str = "",
    output: Path | None = None,
    events: Path | None = None,
    frames: int = 0,
    name: str = "",
    runtime: Runtime = Runtime(),
) -> Looked:
    """Look until the source ends, a number of frames is reached, or the run is cancelled; no window is opened.

    Args:
        source: A webcam (0), a video, a stream, a folder or a picture, as the worker sees it.
        model: An alias, a version, a run, or the folder of a bundle; empty follows what is deployed.
        endpoint: Address of a running `mlflow models serve`, used instead of a model in the worker's own process.
        output: Annotated video, or the last frame as a picture.
        events: A line of JSON for each face of each frame.
        frames: Frames after which it ends; 0 for no end.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        runtime: Workspace and tracking store.
    """
    asked = CameraOptions(
        source=source, model=model, endpoint=endpoint, headless=True, output=output, events=events, frames=frames,
        name=name,
    )  # fmt: skip
    return look(asked, runtime)
