"""The flow that runs a camera on a webcam, stream, video or folder that the worker can read."""

from pathlib import Path

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.serving.camera_session import CameraOptions
from flows.beginning import begin
from tasks.camera import CameraResult
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
    runtime: Runtime | None = None,
) -> CameraResult:
    """Run until the source ends, the number of frames is reached, or the run is cancelled; no window is opened.

    Args:
        source: A webcam (0), a video, a stream, a folder or a picture, as the worker sees it.
        model: An alias, a version, a run, or a bundle folder; empty means the deployed version.
        endpoint: Address of a running `mlflow models serve`, used instead of a model in the worker's own process.
        output: Annotated video, or the last frame as a picture.
        events: File for one line of JSON per face and frame.
        frames: Number of frames after which it ends; 0 means no limit.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        runtime: Workspace and tracking store; by default those of the worker.
    """
    asked = CameraOptions(
        source=source, model=model, endpoint=endpoint, headless=True, output=output, events=events, frames=frames,
        name=name,
    )  # fmt: skip
    return look(asked, runtime or Runtime())
