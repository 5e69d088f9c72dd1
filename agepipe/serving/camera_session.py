"""A camera from what a user asked for: the source, the model, the detector and where the results go."""

from pathlib import Path

from agepipe.config.base import Settings
from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from agepipe.core.progress import Progress, silent
from agepipe.model.bundle import CARD
from agepipe.registry import lookup
from agepipe.serving import camera, sinks, window
from agepipe.serving import sources as frames
from agepipe.serving.camera import Camera, Model, Summary
from agepipe.serving.detect.detector import load_detector
from agepipe.serving.endpoint import address
from agepipe.serving.model_source import Fixed, Following, Served
from agepipe.serving.outputs import check_apart, check_output
from agepipe.serving.sinks import Sink
from agepipe.serving.sources import Source


class Asked(Settings):
    """What a user asked of a camera."""

    source: str = "0"
    """A webcam by number, a video, a stream, a folder, an archive or a picture."""
    model: str = ""
    """An alias, a version, a run, or the folder of a bundle; empty follows what is deployed."""
    endpoint: str = ""
    """Address of a running `mlflow models serve`, used instead of a model in this process."""
    name: str = ""
    """The registered model; empty takes `agepipe`, or the only one there is."""
    headless: bool = False
    """Whether to open no window."""
    output: Path | None = None
    """Annotated video, or the last frame as a picture."""
    events: Path | None = None
    """A line of JSON for each face of each frame."""
    frames: int = 0
    """Frames after which it ends; 0 for no end."""


def check(asked: Asked, unseen: bool = False) -> None:
    """Refuse what cannot work before anything is opened.

    Args:
        asked: what the user asked.
        unseen: whether the caller uses the summary itself, so that neither a window nor a file is needed.

    Raises:
        ConfigError: a file cannot be written, or nobody would see anything.
        ServiceError: a window is wanted where there is no display.
    """
    check_endpoint(asked)
    if not asked.source:
        raise ConfigError("--source: '' is empty; name a webcam (0), a video, a stream, a folder or a picture.")
    if asked.output is not None:
        check_output("--output", asked.output, (*sinks.CODECS, *sinks.STILLS))
        check_apart("--output", asked.output, asked.source)
    if asked.events is not None:
        check_output("--events", asked.events, (".jsonl",))
        check_apart("--events", asked.events, asked.source)
    if not asked.headless:
        window.check_display()
    elif asked.output is None and asked.events is None and not unseen:
        raise ConfigError(
            "--headless: without a window nobody would see anything; add --output annotated.mp4 or --events "
            "events.jsonl."
        )


def check_endpoint(asked: Asked) -> None:
    """Refuse an endpoint beside a model, or one that is no address.

    Raises:
        ConfigError: says which.
    """
    if asked.endpoint and asked.model:
        raise ConfigError(f"--endpoint: it answers instead of --model {asked.model}; leave one of the two out.")
    if asked.endpoint:
        address(asked.endpoint)


def run(
    asked: Asked, runtime: Runtime, progress: Progress = silent, *, unseen: bool = False, into: Summary | None = None
) -> Summary:
    """Run a camera until its source ends, or the user ends it.

    Args:
        asked: what the user asked.
        runtime: the workspace and the store.
        progress: told after each frame.
        unseen: whether the caller uses the summary itself, so that neither a window nor a file is needed.
        into: what is filled and returned, for who wants it even where this is ended from outside.

    Raises:
        AgepipeError: the source, the model, the detector or a file cannot be used; says which, and what to do.
    """
    check(asked, unseen)
    camera.one_thread()
    model, (detector, told) = chosen(asked, runtime), load_detector(runtime)
    source, keys = frames.opened(asked.source), window.Keys()
    done = into or Summary()
    done.notes += told
    return camera.run(
        source, Camera(model, detector), _sinks(asked, source, keys, runtime), most=asked.frames,
        ended=lambda: keys.quit, helped=lambda: keys.helped, progress=progress,
        into=done,
    )  # fmt: skip


def chosen(asked: Asked, runtime: Runtime) -> Model:
    """The model that was named, that of a server, or whatever is deployed.

    Raises:
        ModelError: there is no such model, or it cannot be used.
        ServiceError: the server does not answer as it should.
    """
    if asked.endpoint:
        return Served(asked.endpoint)
    if not asked.model:
        return Following(runtime, asked.name)
    folder = Path(asked.model)
    if (folder / CARD).is_file():
        return Fixed(folder, folder.absolute().name)
    found = lookup.resolve(asked.model, runtime, asked.name)
    version = lookup.of_digest(found.digest, asked.name, runtime)
    return Fixed(found.folder, f"{version.name} version {version.number}" if version else f"run {asked.model[:10]}")


def _sinks(asked: Asked, source: Source, keys: window.Keys, runtime: Runtime) -> list[Sink]:
    found: list[Sink] = []
    if asked.output is not None:
        found.append(sinks.recorder(asked.output, source.rate))
    if asked.events is not None:
        found.append(sinks.Events(asked.events))
    if not asked.headless:
        pace = 0.0 if source.live else 1 / source.rate
        found.append(window.Window(keys, runtime.workspace / "snapshots", pace, still=source.apart))
    return found
