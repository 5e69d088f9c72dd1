"""A camera session: create source, model, detector and sinks from the user's options, and run the camera."""

from pathlib import Path

from agepipe.config.base import Settings
from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from agepipe.core.progress import Progress, silent
from agepipe.model.bundle import CARD
from agepipe.registry import lookup
from agepipe.serving import camera, sinks, window
from agepipe.serving.camera import Camera, ModelSource, Summary
from agepipe.serving.detect.detector import load_detector
from agepipe.serving.endpoint import Endpoint, address
from agepipe.serving.model_source import DeployedModel, FixedModel
from agepipe.serving.outputs import check_apart, check_output
from agepipe.serving.sinks import Sink
from agepipe.serving.sources import Source, open_source


class CameraOptions(Settings):
    """The user's options for a camera or the web page."""

    source: str = "0"
    """Number of a webcam, URL of a stream, or path of a video, folder, archive or picture."""
    model: str = ""
    """An alias, a version, a run id, or the folder of a bundle; empty takes the deployed model and follows changes."""
    endpoint: str = ""
    """URL of a running `mlflow models serve`, used instead of a model in this process."""
    name: str = ""
    """Name of the registered model; empty takes `agepipe`, or the only one in the store."""
    headless: bool = False
    """Run without a window."""
    output: Path | None = None
    """File of the annotated video, or of the last frame as a picture."""
    events: Path | None = None
    """File with a line of JSON for each face of each frame."""
    frames: int = 0
    """Number of frames after which to stop; 0 for no limit."""


def check(options: CameraOptions, summary_only: bool = False) -> None:
    """Check the options before anything is opened.

    Args:
        options: the user's options.
        summary_only: whether the caller uses the summary, so that neither a window nor a file is needed.

    Raises:
        ConfigError: a file cannot be written, or there is neither a window nor a file.
        ServiceError: a window is needed, but there is no display.
    """
    check_endpoint(options)
    if not options.source:
        raise ConfigError("--source: '' is empty; name a webcam (0), a video, a stream, a folder or a picture.")
    if options.output is not None:
        check_output("--output", options.output, (*sinks.CODECS, *sinks.STILLS))
        check_apart("--output", options.output, options.source)
    if options.events is not None:
        check_output("--events", options.events, (".jsonl",))
        check_apart("--events", options.events, options.source)
    if not options.headless:
        window.check_display()
    elif options.output is None and options.events is None and not summary_only:
        raise ConfigError(
            "--headless: without a window there is no output; add --output annotated.mp4 or --events events.jsonl."
        )


def check_endpoint(options: CameraOptions) -> None:
    """Check the options `endpoint` and `model`.

    Raises:
        ConfigError: both are given, or the endpoint is not an HTTP URL.
    """
    if options.endpoint and options.model:
        raise ConfigError(
            f"--endpoint: it is used instead of a model, but --model is {options.model}; leave one of the two out."
        )
    if options.endpoint:
        address(options.endpoint)


def run(
    options: CameraOptions,
    runtime: Runtime,
    progress: Progress = silent,
    *,
    summary_only: bool = False,
    summary: Summary | None = None,
) -> Summary:
    """Run a camera until its source ends or the user stops it.

    Args:
        options: the user's options.
        runtime: workspace and tracking store.
        progress: called after each frame.
        summary_only: whether the caller uses the summary, so that neither a window nor a file is needed.
        summary: filled and returned, so that the caller has it even if an exception ends the session.

    Raises:
        AgepipeError: the source, the model, the detector or a file cannot be used.
    """
    check(options, summary_only)
    camera.one_thread()
    model, (detector, notes) = load_model(options, runtime), load_detector(runtime)
    source, keys = open_source(options.source), window.Keys()
    done = summary or Summary()
    done.notes += notes
    return camera.run(
        source, Camera(model, detector), _sinks(options, source, keys, runtime), max_frames=options.frames,
        stop=lambda: keys.quit, show_help=lambda: keys.show_help, progress=progress, summary=done,
    )  # fmt: skip


def load_model(options: CameraOptions, runtime: Runtime) -> ModelSource:
    """Load the model that the options name: of an endpoint, the deployed one, or a bundle, version or run.

    Raises:
        ModelError: there is no such model, or it cannot be used.
        ServiceError: the endpoint does not respond, or does not serve a model of agepipe.
    """
    if options.endpoint:
        return Endpoint(options.endpoint)
    if not options.model:
        return DeployedModel(runtime, options.name)
    folder = Path(options.model)
    if (folder / CARD).is_file():
        return FixedModel(folder, folder.absolute().name)
    found = lookup.resolve(options.model, runtime, options.name)
    version = lookup.of_digest(found.digest, options.name, runtime)
    return FixedModel(
        found.folder, f"{version.name} version {version.number}" if version else f"run {options.model[:10]}"
    )


def _sinks(options: CameraOptions, source: Source, keys: window.Keys, runtime: Runtime) -> list[Sink]:
    opened: list[Sink] = []
    if options.output is not None:
        opened.append(sinks.output_sink(options.output, source.rate))
    if options.events is not None:
        opened.append(sinks.Events(options.events))
    if not options.headless:
        interval = 0.0 if source.live else 1 / source.rate
        opened.append(window.Window(keys, runtime.workspace / "snapshots", interval, wait_for_key=source.independent))
    return opened
