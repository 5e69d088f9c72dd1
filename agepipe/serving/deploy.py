"""Deploy a registered version to the cameras of a workspace.

`workspace/deployed/` contains a folder for each deployed version, and `current.json`, which names the present one. A
deployment checks the bundle, copies it atomically, and then replaces `current.json` atomically. Cameras check that file
between two frames.
"""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from agepipe.config.runtime import Runtime
from agepipe.core.artifacts import read_manifest, remove, replacing, whole, write_manifest
from agepipe.core.errors import ModelError
from agepipe.data.sample import source as sample
from agepipe.model import bundle
from agepipe.model.imaging import decode, fit
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup, store
from agepipe.registry.versions import Version, parse

POINTER = "current.json"
TIMEOUT = 300
"""Time limit for loading and running the registered model, s."""
PREDICT = """
import json, sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
predictions = model.predict([{"image": text} for text in json.load(sys.stdin)])
print(json.dumps(predictions["probabilities"].tolist()))
"""
"""Script for a process of its own, in which MLflow imports the code that was registered with the model."""


class Check(BaseModel):
    """The check of a bundle before it is deployed: its predictions must be those of the registered model."""

    model_config = ConfigDict(frozen=True)

    pictures: int = 28
    """Number of drawn faces, two of each range; the same in each check."""
    seed: int = 7
    tolerance: float = 1e-4
    """Largest difference of a probability from that of the registered model."""


CHECK = Check()


class Deployed(BaseModel):
    """The deployed bundle, as recorded in `current.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    digest: str
    """Digest of the model."""
    folder: str
    """Name of its folder in `deployed/`."""
    when: str
    """Time of the deployment, UTC."""

    @property
    def title(self) -> str:
        """Name of the version, as users see it."""
        return f"{self.name} version {self.version}"


def folder_of(runtime: Runtime) -> Path:
    """Folder of the deployed bundles and of `current.json`."""
    return runtime.workspace / "deployed"


def deploy(reference: str, runtime: Runtime, name: str = "", check: Check = CHECK) -> Deployed:
    """Deploy a registered version; if its bundle was copied before, only `current.json` is written.

    Args:
        reference: an alias or a version, as for `agepipe.registry.versions.parse`.
        runtime: tracking store and workspace.
        name: name of the registered model; empty takes `agepipe`, or the only one in the store.
        check: the check of the bundle.

    Raises:
        ModelError: there is no such version, its bundle is damaged, or its predictions differ from those of the
            registered model.
    """
    found = find(reference, runtime, name)
    model = lookup.model_of(found, runtime)
    target = folder_of(runtime) / f"{found.name}-{found.number}-{model.digest[:10]}"
    if read_manifest(target) is None or bundle.digest(target) != model.digest:
        remove(target, runtime.workspace)
        with whole(target) as draft:
            _fill(draft, model.folder, found, runtime, check)
    return switch(target, found.name, found.number, runtime)


def find(reference: str, runtime: Runtime, name: str) -> Version:
    """Find the version to deploy.

    Raises:
        ModelError: there is no such version, or the reference is the folder of a bundle.
    """
    if (Path(reference) / bundle.CARD).is_file():
        raise ModelError(
            f"model: {reference!r} is the folder of a bundle, which is not deployed; use it with --model, or name "
            "an alias or a version."
        )
    wanted = parse(reference, name)
    existing = lookup.versions(wanted.name, runtime)
    found = next((version for version in existing if wanted.names(version)), None)
    if found is None:
        raise lookup.unknown(reference, wanted.name, existing, runtime)
    return found


def _fill(draft: Path, source: Path, found: Version, runtime: Runtime, check: Check) -> None:
    for name in (
        bundle.NETWORK,
        bundle.CARD,
    ):  # without the lineage, whose perceptual hashes are derived from the photographs
        shutil.copy(source / name, draft)
    pictures = [sample.encoded(chip, check.seed) for chip in sample.plan(check.pictures, check.seed)]
    largest = difference(predictions(draft, pictures), registered_predictions(found, pictures, runtime))
    if largest > check.tolerance:
        raise ModelError(
            f"model: version {found.number} of {found.name} predicts differently as a bundle than in the registry (a "
            f"probability differs by {largest:.2g}, allowed are {check.tolerance:g}); register the model again."
        )
    result = {"digest": bundle.digest(draft), "name": found.name, "version": found.number, "difference": largest}
    write_manifest(draft, "deploy", check, {"model": found.digest}, result)


def predictions(folder: Path, pictures: Sequence[bytes]) -> NDArray[np.float64]:
    """Predict encoded photographs with a bundle; probabilities, float64 `(n, classes)`."""
    predictor = Predictor.load(folder)
    images = np.stack([fit(decode(data), predictor.card.size) for data in pictures])
    return predictor.predict(images).probabilities.astype(np.float64)


def registered_predictions(found: Version, pictures: Sequence[bytes], runtime: Runtime) -> NDArray[np.float64]:
    """Predict encoded photographs with the registered version and its own code; probabilities, float64 `(n, classes)`.

    Raises:
        ModelError: MLflow cannot load the version, or its prediction fails.
    """
    store.quiet()
    uri = f"models:/{found.name}/{found.number}"
    files = lookup.files(found)  # MLflow would open the store's database for writing
    environ = {**store.environ(runtime), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", PREDICT, str(files or uri)],
            input=json.dumps([base64.b64encode(data).decode() for data in pictures]),
            env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"model: {uri} did not respond in {TIMEOUT} s; try again on a less busy machine.") from error
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ModelError(f"model: MLflow cannot run {uri} ({message[:300]}); register the model again.")
    return np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float64)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest absolute difference of two arrays; infinity if their shapes differ."""
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")


def switch(target: Path, name: str, version: int, runtime: Runtime) -> Deployed:
    """Write a deployed folder into `current.json`."""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    record = Deployed(name=name, version=version, digest=bundle.digest(target), folder=target.name, when=now)
    pointer = folder_of(runtime) / POINTER
    with replacing(pointer) as draft:
        draft.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def current(runtime: Runtime) -> Deployed | None:
    """The present deployment; None if nothing was deployed yet.

    Raises:
        ModelError: `current.json` cannot be read.
    """
    pointer = folder_of(runtime) / POINTER
    try:
        return Deployed.model_validate_json(pointer.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelError(f"{pointer}: not a readable record of a deployment; call `agepipe deploy` again.") from error


def checked(deployed: Deployed, runtime: Runtime) -> Path:
    """Folder of a deployment, after a check that its files were not changed.

    Raises:
        ModelError: a file is missing or was changed.
    """
    folder = folder_of(runtime) / deployed.folder
    if (found := bundle.digest(folder)) != deployed.digest:
        raise ModelError(
            f"{folder}: its files are not those of version {deployed.version} of {deployed.name} (digest "
            f"{found[:10]}, not {deployed.digest[:10]}); call `agepipe deploy {deployed.version} --name "
            f"{deployed.name}` to copy them again."
        )
    return folder
