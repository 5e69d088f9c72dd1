"""The task that runs a camera and leaves a summary in Prefect. Never cached."""

import base64
from pathlib import Path

import cv2
from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from agepipe.config.runtime import Runtime
from agepipe.model.imaging import Image
from agepipe.serving import camera_session
from agepipe.serving.camera import Summary
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.sinks import write_picture
from tasks.watch import watch

WIDE = 640
"""Width of the picture in the artifact in px; small, since Prefect stores artifacts in its database."""


class CameraResult(BaseModel):
    """Summary of a camera run."""

    model_config = ConfigDict(frozen=True)

    frames: int
    faces: int
    """Sum over all frames."""
    people: int
    """Tracked faces."""
    rate: float
    """Frames a second."""
    models: tuple[str, ...]
    """The models used, in order."""
    detector: str
    """The face detector."""
    picture: Path
    """The last annotated frame."""
    notes: tuple[str, ...] = ()


@task
def camera(asked: CameraOptions, runtime: Runtime) -> CameraResult:
    """Run until the source ends, the number of frames is reached, or the run is cancelled.

    Prefect cancels by an exception in the middle of a frame; files and artifact are still completed.
    """
    found = Summary()
    try:
        camera_session.run(asked, runtime, watch("camera"), summary_only=True, summary=found)
    finally:
        result = None if found.last is None else _summary(found, found.last, asked, runtime)
    assert result is not None, "a session without a frame has raised"
    return result


def _summary(found: Summary, last: Image, asked: CameraOptions, runtime: Runtime) -> CameraResult:
    """Write the last picture and create the artifact."""
    folder = runtime.workspace / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    result = CameraResult(
        frames=found.frames, faces=found.faces, people=len(found.tracks), rate=found.rate, models=tuple(found.models),
        detector=found.detector,
        picture=write_picture(folder / "last.jpg", last), notes=tuple(found.notes),
    )  # fmt: skip
    create_markdown_artifact(
        key="camera", markdown=markdown(result, asked, last), description="Summary of the camera run"
    )
    return result


def markdown(result: CameraResult, asked: CameraOptions, last: Image) -> str:
    """Counts, models and the last picture."""
    rows = {
        "model": ", ".join(result.models), "source": asked.source, "frames": result.frames, "faces": result.people,
        "faces found by": result.detector,
        "frames a second": f"{result.rate:.1f}",
    }  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    notes = "\n".join(f"- {note}" for note in result.notes)
    return f"| | |\n|---|---|\n{table}\n\n{notes}\n\n![The last frame]({_inline(last)})\n"


def _inline(image: Image) -> str:
    height, width = image.shape[:2]
    scale = min(1.0, WIDE / width)
    small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
