"""The model that a camera uses: one that was named, that of a server, or what is deployed, followed between frames."""

import threading
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.core.errors import AgepipeError
from agepipe.core.system_errors import of_system
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup
from agepipe.serving.deploy import POINTER, Deployed, checked, current, deploy, folder_of
from agepipe.serving.endpoint import Endpoint


class Fixed:
    """A model that stays."""

    def __init__(self, folder: Path, title: str) -> None:
        """Load a bundle.

        Raises:
            ModelError: it cannot be used.
        """
        self.predictor, self.title = Predictor.load(folder), title

    def renewed(self) -> bool:
        """Whether another model answers from now on."""
        return False

    def notes(self) -> list[str]:
        """What a user should know afterwards."""
        return []


class Served:
    """The model of a server, in another process."""

    def __init__(self, url: str, patience: float | None = None) -> None:
        """Ask the server what it is.

        Args:
            url: its address.
            patience: for how long it is asked again where it is gone or fails, s; by default a camera's.

        Raises:
            ConfigError: the address is none of HTTP.
            ServiceError: nothing answers there, or not as a registered model of agepipe does.
        """
        self.predictor = Endpoint(url, patience)
        self.title = self.predictor.title

    def renewed(self) -> bool:
        """Whether another model answers from now on."""
        return False

    def notes(self) -> list[str]:
        """What a user should know afterwards."""
        breaks = self.predictor.breaks
        return [f"{self.predictor.url} did not answer {breaks} times and was asked again."] if breaks else []


class Following:
    """The deployed model; a switched pointer is followed, and the next model loaded while the last one answers."""

    def __init__(self, runtime: Runtime, name: str = "") -> None:
        """Load what is deployed; where nothing is, the champion is deployed first.

        Raises:
            ModelError: nothing is deployed and there is no champion, or the bundle cannot be used.
        """
        self._where, self._notes = runtime, list[str]()
        self._pointer = folder_of(runtime) / POINTER
        self._next: Fixed | None = None
        self._thread: threading.Thread | None = None
        first = self._first(name)
        self._stamp = self._stamped()
        self._use(first)

    def _first(self, name: str) -> Fixed:
        try:
            return self._loaded(current(self._where) or deploy("champion", self._where, name))
        except OSError as error:  # a workspace that may only be read
            self._notes.append(f"The champion was not deployed ({of_system(error)}) It is used where it lies.")
            found = lookup.resolve("champion", self._where, name)
            version = lookup.of_digest(found.digest, name, self._where)
            return Fixed(found.folder, f"{version.name} version {version.number}" if version else found.folder.name)

    def _use(self, model: Fixed) -> None:
        self.predictor, self.title = model.predictor, model.title

    def _loaded(self, deployed: Deployed) -> Fixed:
        return Fixed(checked(deployed, self._where), deployed.title)

    def _stamped(self) -> tuple[int, int] | None:
        try:
            status = self._pointer.stat()
        except OSError:
            return None  # between two names, or removed: what is loaded goes on
        return status.st_mtime_ns, status.st_ino

    def renewed(self) -> bool:
        """Whether another model answers from now on; asked between two frames, it never waits."""
        if self._thread is None and (stamp := self._stamped()) not in (None, self._stamp):
            self._stamp = stamp
            self._thread = threading.Thread(target=self._load, name="model", daemon=True)
            self._thread.start()
            return False
        if self._thread is None or self._thread.is_alive():
            return False
        self._thread, model, self._next = None, self._next, None
        if model is None:
            return False
        self._use(model)
        self._notes.append(f"Changed over to {model.title}.")
        return True

    def _load(self) -> None:
        try:
            deployed = current(self._where)
            self._next = None if deployed is None else self._loaded(deployed)
        except AgepipeError as error:
            self._notes.append(f"Not changed over, {self.title} goes on: {error}")

    def notes(self) -> list[str]:
        """Which models came, and which could not be loaded."""
        return self._notes
