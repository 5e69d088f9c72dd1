"""A camera from what a user asked for: the source, the model, the detector and where the results go."""

from pathlib import Path

from agepipe import lookup
from agepipe.config import Where
from agepipe.errors import ConfigError
from agepipe.progress import Progress, silent
from agepipe.serve import camera, frames, sinks, window
from agepipe.serve.bundle import CARD
from agepipe.serve.camera import Camera, Model, Summary
from agepipe.serve.faces import Detector
from agepipe.serve.frames import Source
from agepipe.serve.model import Fixed, Following
from agepipe.serve.outputs import check_output
from agepipe.serve.sinks import Sink
from agepipe.serve.yunet import located
from agepipe.settings import Settings


class Asked(Settings):
    """What a user asked of a camera."""

    source: str = "0"
    """A webcam by number, a video, a stream, a folder, an archive or a picture."""
    model: str = ""
    """An alias, a version, a run, or the folder of a bundle; empty follows what is deployed."""
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
    if asked.output is not None:
        check_output("--output", asked.output, (*sinks.CODECS, *sinks.STILLS))
    if asked.events is not None:
        check_output("--events", asked.events, (".jsonl",))
    if not asked.headless:
        window.check_display()
    elif asked.output is None and asked.events is None and not unseen:
        raise ConfigError(
            "--headless: without a window nobody would see anything; add --output annotated.mp4 or --events "
            "events.jsonl."
        )


def run(asked: Asked, where: Where, progress: Progress = silent, *, unseen: bool = False) -> Summary:
    """Run a camera until its source ends, or the user ends it.

    Args:
        asked: what the user asked.
        where: the workspace and the store.
        progress: told after each frame.
        unseen: whether the caller uses the summary itself, so that neither a window nor a file is needed.

    Raises:
        AgepipeError: the source, the model, the detector or a file cannot be used; says which, and what to do.
    """
    check(asked, unseen)
    camera.one_thread()
    model, detector = chosen(asked, where), Detector(located(where))
    source, keys = frames.opened(asked.source), window.Keys()
    return camera.run(
        source, Camera(model, detector), _sinks(asked, source, keys, where), most=asked.frames,
        ended=lambda: keys.quit, helped=lambda: keys.helped, progress=progress,
    )  # fmt: skip


def chosen(asked: Asked, where: Where) -> Model:
    """The model that was named, or whatever is deployed.

    Raises:
        ModelError: there is no such model, or it cannot be used.
    """
    if not asked.model:
        return Following(where, asked.name)
    folder = Path(asked.model)
    if (folder / CARD).is_file():
        return Fixed(folder, folder.absolute().name)
    found = lookup.resolve(asked.model, where, asked.name)
    version = lookup.of_digest(found.digest, asked.name, where)
    return Fixed(found.folder, f"{version.name} version {version.number}" if version else f"run {asked.model[:10]}")


def _sinks(asked: Asked, source: Source, keys: window.Keys, where: Where) -> list[Sink]:
    found: list[Sink] = []
    if asked.output is not None:
        found.append(sinks.recorder(asked.output, source.rate))
    if asked.events is not None:
        found.append(sinks.Events(asked.events))
    if not asked.headless:
        pace = 0.0 if source.live else 1 / source.rate
        found.append(window.Window(keys, where.workspace / "snapshots", pace, still=source.apart))
    return found
