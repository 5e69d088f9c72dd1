"""The model that a camera uses: a fixed bundle, or the deployed one, which may change."""

import threading
from pathlib import Path

from agepipe.config.runtime import Runtime
from agepipe.core.errors import AgepipeError
from agepipe.core.system_errors import of_system
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup
from agepipe.serving.deploy import POINTER, Deployed, checked, current, deploy, folder_of


class FixedModel:
    """A bundle that does not change."""

    def __init__(self, folder: Path, title: str) -> None:
        """Load a bundle.

        Args:
            folder: folder of the bundle.
            title: name of the model, as users see it.

        Raises:
            ModelError: the bundle cannot be used.
        """
        self.predictor, self.title = Predictor.load(folder), title

    def update(self) -> bool:
        """Return False: the model does not change."""
        return False

    def notes(self) -> list[str]:
        """No notes."""
        return []


class DeployedModel:
    """The deployed model; a new deployment is loaded in a thread while the previous model is still used."""

    def __init__(self, runtime: Runtime, name: str = "") -> None:
        """Load the deployed model; if nothing is deployed, deploy the champion.

        Args:
            runtime: workspace and tracking store.
            name: name of the registered model; empty takes `agepipe`, or the only one in the store.

        Raises:
            ModelError: nothing is deployed and there is no champion, or the bundle cannot be used.
        """
        self._runtime, self._notes = runtime, list[str]()
        self._pointer = folder_of(runtime) / POINTER
        self._next: FixedModel | None = None
        self._thread: threading.Thread | None = None
        first = self._first(name)
        self._modified = self._modified_time()
        self._use(first)

    def _first(self, name: str) -> FixedModel:
        try:
            return self._loaded(current(self._runtime) or deploy("champion", self._runtime, name))
        except OSError as error:  # the workspace is read-only
            self._notes.append(f"The champion was not deployed ({of_system(error)}) It is used from the registry.")
            found = lookup.resolve("champion", self._runtime, name)
            version = lookup.of_digest(found.digest, name, self._runtime)
            return FixedModel(
                found.folder, f"{version.name} version {version.number}" if version else found.folder.name
            )

    def _use(self, model: FixedModel) -> None:
        self.predictor, self.title = model.predictor, model.title

    def _loaded(self, deployed: Deployed) -> FixedModel:
        return FixedModel(checked(deployed, self._runtime), deployed.title)

    def _modified_time(self) -> tuple[int, int] | None:
        try:
            status = self._pointer.stat()
        except OSError:
            return None  # a removed file changes nothing
        return status.st_mtime_ns, status.st_ino

    def update(self) -> bool:
        """Switch to a newly deployed model once it is loaded; returns whether it did, without waiting."""
        if self._thread is None and (modified := self._modified_time()) not in (None, self._modified):
            self._modified = modified
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
            deployed = current(self._runtime)
            self._next = None if deployed is None else self._loaded(deployed)
        except AgepipeError as error:
            self._notes.append(f"Not changed over, {self.title} goes on: {error}")

    def notes(self) -> list[str]:
        """The changes of the model, and the models that could not be loaded."""
        return self._notes
