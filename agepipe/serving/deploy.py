"""From a version in the registry to the bundle that a camera uses: checked, copied whole, then pointed to.

`workspace/deployed/` holds one folder a version and `current.json`, which says which of them serves. The pointer is
written by a rename, so whoever reads it meets the old one or the new one; a camera looks at it between two frames.
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
SECONDS = 300
"""How long the registered model may take to load and answer."""
ASK = """
import json, sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = model.predict([{"image": text} for text in json.load(sys.stdin)])
print(json.dumps(answers["probabilities"].tolist()))
"""
"""Run in a process of its own: there MLflow takes the package that was registered with the model, not this one."""


class Check(BaseModel):
    """What a bundle is shown before it may serve."""

    model_config = ConfigDict(frozen=True)

    pictures: int = 28
    """Drawn faces, the same every time; two of each range."""
    seed: int = 7
    tolerance: float = 1e-4
    """Largest difference of a probability from the registered model's answer."""


CHECK = Check()


class Deployed(BaseModel):
    """The bundle that serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    digest: str
    """The model's."""
    folder: str
    """Name of its folder beside the pointer."""
    when: str
    """When the pointer was switched to it, UTC."""

    @property
    def title(self) -> str:
        """As a person calls it."""
        return f"{self.name} version {self.version}"


def folder_of(runtime: Runtime) -> Path:
    """Where deployed bundles and the pointer lie."""
    return runtime.workspace / "deployed"


def deploy(reference: str, runtime: Runtime, name: str = "", check: Check = CHECK) -> Deployed:
    """Deploy a registered version; one that lies there already is only pointed to.

    Args:
        reference: an alias or a version, as `agepipe.registry.versions.parse` reads them.
        runtime: the store and the workspace.
        name: the registered model; empty takes `agepipe`, or the only one there is.
        check: what the bundle is shown.

    Raises:
        ModelError: there is no such version, its bundle is damaged, or it answers otherwise than the registered model.
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
    """The version that is to be deployed.

    Raises:
        ModelError: there is no such version, or the reference is the folder of a bundle.
    """
    if (Path(reference) / bundle.CARD).is_file():
        raise ModelError(
            f"model: {reference!r} is the folder of a bundle, which needs no deploying; use it with --model, or name "
            "an alias or a version."
        )
    wanted = parse(reference, name)
    there = lookup.versions(wanted.name, runtime)
    found = next((version for version in there if wanted.names(version)), None)
    if found is None:
        raise lookup.unknown(reference, wanted.name, there, runtime)
    return found


def _fill(draft: Path, source: Path, found: Version, runtime: Runtime, check: Check) -> None:
    for name in (bundle.NETWORK, bundle.CARD):  # a camera needs no lineage, whose sketches show the photographs
        shutil.copy(source / name, draft)
    pictures = [sample.encoded(chip, check.seed) for chip in sample.plan(check.pictures, check.seed)]
    apart = difference(answers(draft, pictures), registered_answers(found, pictures, runtime))
    if apart > check.tolerance:
        raise ModelError(
            f"model: version {found.number} of {found.name} answers otherwise as a bundle than in the registry (a "
            f"probability differs by {apart:.2g}, allowed are {check.tolerance:g}); register the model anew."
        )
    result = {"digest": bundle.digest(draft), "name": found.name, "version": found.number, "difference": apart}
    write_manifest(draft, "deploy", check, {"model": found.digest}, result)


def answers(folder: Path, pictures: Sequence[bytes]) -> NDArray[np.float64]:
    """What a bundle says of photograph files: probabilities `(n, classes)`."""
    predictor = Predictor.load(folder)
    images = np.stack([fit(decode(data), predictor.card.size) for data in pictures])
    return predictor.predict(images).probabilities.astype(np.float64)


def registered_answers(found: Version, pictures: Sequence[bytes], runtime: Runtime) -> NDArray[np.float64]:
    """What the registered version says of them, loaded by MLflow with the code that was registered with it.

    Raises:
        ModelError: MLflow cannot load it, or it fails.
    """
    store.quiet()
    uri = f"models:/{found.name}/{found.number}"
    files = lookup.files(found)  # of a local store; its database may lie where it can only be read
    environ = {**store.environ(runtime), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", ASK, str(files or uri)],
            input=json.dumps([base64.b64encode(data).decode() for data in pictures]),
            env=environ, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"model: {uri} did not answer in {SECONDS} s; try again on a less busy machine.") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ModelError(f"model: MLflow cannot run {uri} ({said[:300]}); register the model anew.")
    return np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float64)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The largest difference of two tables of probabilities; infinite where they are not of one shape."""
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")


def switch(target: Path, name: str, version: int, runtime: Runtime) -> Deployed:
    """Point to a deployed folder."""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    record = Deployed(name=name, version=version, digest=bundle.digest(target), folder=target.name, when=now)
    pointer = folder_of(runtime) / POINTER
    with replacing(pointer) as draft:
        draft.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def current(runtime: Runtime) -> Deployed | None:
    """What serves now; None where nothing was deployed yet.

    Raises:
        ModelError: the pointer cannot be read.
    """
    pointer = folder_of(runtime) / POINTER
    try:
        return Deployed.model_validate_json(pointer.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelError(f"{pointer}: cannot be read as what is deployed; call `agepipe deploy` again.") from error


def checked(deployed: Deployed, runtime: Runtime) -> Path:
    """The folder of what serves, whose network and card are still those that were deployed.

    Raises:
        ModelError: a file is missing or was changed.
    """
    folder = folder_of(runtime) / deployed.folder
    if (found := bundle.digest(folder)) != deployed.digest:
        raise ModelError(
            f"{folder}: its files are not those of version {deployed.version} of {deployed.name} (digest "
            f"{found[:10]}, not {deployed.digest[:10]}); call `agepipe deploy {deployed.version} --name "
            f"{deployed.name}` to copy them anew."
        )
    return folder
