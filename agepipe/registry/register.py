"""Register models, and change which version is champion.

A model is registered once, identified by its digest. Moving the alias commits a promotion
(`agepipe.registry.promotion`). An interrupted promotion is completed or discarded by the next command, and an
interrupted registration is continued. A file lock serialises registrations and promotions. MLflow serves a version from
`agepipe.model.mlflow_model`, the bundle and the source files in `SHIPPED`, without pickle.
"""

import base64
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

import agepipe
from agepipe.config.runtime import Runtime
from agepipe.config.stages import ReleaseSettings
from agepipe.core import provenance
from agepipe.core.errors import ModelError, TrackingError, first_line
from agepipe.data.records import Partition
from agepipe.evaluation.records import Evaluation
from agepipe.model import bundle
from agepipe.model.records import Model
from agepipe.registry import store, tracking
from agepipe.registry import versions as tags
from agepipe.registry.lookup import champion, model_of, named, numbered, of_digest
from agepipe.registry.promotion import move, place, recover
from agepipe.registry.records import Registered
from agepipe.registry.versions import CHALLENGER, CHAMPION, Pending, Version

PACKAGE = Path(agepipe.__file__).parent
SHIPPED = (
    "__init__.py",
    "core/__init__.py", "core/errors.py", "core/progress.py",
    "model/__init__.py", "model/ages.py", "model/bundle.py", "model/decoding.py", "model/headers.py",
    "model/imaging.py", "model/jpeg.py", "model/png.py", "model/predictor.py",
)  # fmt: skip
"""Files of the package that `agepipe.model.mlflow_model` imports; a registered version contains these and no others."""

HEADLESS = "opencv-python-headless"
"""The build of OpenCV without windows, which also loads without libGL, as in a slim container."""
REQUIREMENTS = ("mlflow", "numpy", HEADLESS, "pillow", "simplejpeg", "onnxruntime", "pydantic", "pandas")
"""Distributions that `SHIPPED` and `agepipe.model.mlflow_model` import."""


class Decision(Protocol):
    """The result of a comparison with the champion; `agepipe.evaluation.gate.Comparison` implements it."""

    @property
    def promote(self) -> bool:
        """Whether the candidate becomes champion."""

    @property
    def reason(self) -> str:
        """Why, in one sentence."""


def register(
    model: Model,
    evaluation: Evaluation | None,
    release: ReleaseSettings,
    runtime: Runtime,
    *,
    decide: Callable[[Model], Decision] | None = None,
    partition: Partition | None = None,
    parent: str | None = None,
) -> Registered:
    """Register a model and decide its alias; a model that is registered already keeps its version and alias.

    Args:
        model: The model, identified by its digest.
        evaluation: Its test figures; None for a model that has not been evaluated.
        release: The name to register it under.
        runtime: The store.
        decide: Takes the champion and compares the model with it; with None the model becomes a challenger.
        partition: The split of its rows, which a later split can extend.
        parent: The pipeline's run, recorded in the version's tags.

    Raises:
        ModelError: the evaluation is of another model, or the champion's files are missing.
    """
    if evaluation is not None and evaluation.model != model.digest:
        raise ModelError(
            f"evaluation: it is of the model {evaluation.model[:10]}, not {model.digest[:10]}; evaluate the model "
            "that is to be registered."
        )
    with _turn(release.model, runtime):
        found = of_digest(model.digest, release.model, runtime)
        found = found or _created(model, evaluation, release.model, runtime, partition, parent)
        if not found.settled:
            _settle(found, model, runtime, decide)
        return numbered(found.number, release.model, runtime).record()


def _created(
    model: Model, evaluation: Evaluation | None, name: str, runtime: Runtime, partition: Partition | None,
    parent: str | None,
) -> Version:  # fmt: skip
    client, run_id = tracking.client(runtime), _run(model, runtime)
    facts = tags.facts(model, evaluation, partition, parent)
    if partition is not None:
        kept = partition.relative_to(runtime.workspace)
        with tracking.transferring(runtime):
            client.log_text(run_id, kept.model_dump_json(indent=2), "partition/partition.json")
            client.log_artifact(run_id, str(partition.members), "partition")
    made = client.create_logged_model(tracking.prepare(runtime), f"{name}-{model.digest[:10]}", run_id)
    with tempfile.TemporaryDirectory() as folder:
        _package(model, Path(folder), made.model_id, run_id)
        if evaluation is not None and evaluation.model_card.exists():
            shutil.copy(evaluation.model_card, Path(folder) / "model")
        with tracking.transferring(runtime):
            client.log_model_artifacts(made.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(made.model_id, "READY")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Age ranges of faces, by agepipe.")
    version = client.create_model_version(
        name, made.artifact_location, run_id, tags=facts, model_id=made.model_id, await_creation_for=0
    )
    return numbered(int(version.version), name, runtime)


def _run(model: Model, runtime: Runtime) -> str:
    """The run that trained the model, or a new run if that is not in this store."""
    experiment = tracking.prepare(runtime)
    if model.run and tracking.client(runtime).search_runs([experiment], f"attributes.run_id = '{model.run}'"):
        return model.run
    with tracking.run(runtime, kind="release", name=f"register {model.digest[:10]}", key=model.digest) as opened:
        return opened.run_id


def _package(model: Model, folder: Path, model_id: str, run_id: str) -> None:
    """Write `folder/model` as an MLflow model from code, with the bundle and the code that it imports."""
    kept = (bundle.NETWORK, bundle.CARD, bundle.LINEAGE, bundle.CURVES, bundle.WEIGHTS)
    for name in SHIPPED:
        target = folder / "agepipe" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, target)
    shutil.copy(PACKAGE / "model" / "mlflow_model.py", folder)
    (folder / "bundle").mkdir()
    for path in (model.folder / name for name in kept):
        if path.exists():
            shutil.copy(path, folder / "bundle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own classes and examples cause warnings of MLflow and pandas
        _save(folder, model_id, run_id)
    description = folder / "model" / "MLmodel"  # the temporary path of the bundle is removed
    description.write_text(description.read_text(encoding="utf-8").replace(f"{folder}/", ""), encoding="utf-8")


def _save(folder: Path, model_id: str, run_id: str) -> None:
    """Save the MLflow model; signature and requirements are given, because MLflow would run the model and pip."""
    store.quiet()
    import mlflow.pyfunc
    from mlflow.models import Model as Description
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array, DataType
    from pandas import DataFrame

    answer: list[ColSpec | TensorSpec] = [
        *(ColSpec(kind, name) for name, kind in (("range", "string"), ("probability", "double"), ("age", "double"))),
        *(ColSpec("long", name, required=False) for name in ("low", "high")),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
    grey = cv2.imencode(".png", np.full((64, 64, 3), 128, dtype=np.uint8))[1].tobytes()
    mlflow.pyfunc.save_model(
        folder / "model",
        mlflow_model=Description(model_id=model_id, model_uuid=model_id, run_id=run_id),
        python_model=str(folder / "mlflow_model.py"),
        artifacts={"bundle": str(folder / "bundle")},
        code_paths=[str(folder / "agepipe")],
        pip_requirements=_requirements(),
        signature=ModelSignature(
            Schema([ColSpec("string", "image")]), Schema(answer), ParamSchema([ParamSpec("card", "boolean", False)])
        ),
        input_example=DataFrame({"image": [base64.b64encode(grey).decode()]}),
    )


def _requirements() -> list[str]:
    """`REQUIREMENTS` at the versions installed here; both builds of OpenCV are released under the same versions."""
    installed = {name: provenance.version(name) for name in REQUIREMENTS}
    installed[HEADLESS] = installed[HEADLESS] or provenance.version("opencv-python")
    return [f"{name}=={version}" for name, version in installed.items()]


def _settle(found: Version, model: Model, runtime: Runtime, decide: Callable[[Model], Decision] | None) -> None:
    """Decide the alias of a version that is not the champion, and assign it."""
    before = champion(found.name, runtime)
    if before is not None and before.number == found.number:
        return
    promote, reason = _decided(model, before, runtime, decide)
    place(found, CHAMPION if promote else CHALLENGER, reason, before, runtime)


def _decided(
    model: Model, before: Version | None, runtime: Runtime, decide: Callable[[Model], Decision] | None
) -> tuple[bool, str]:
    if model.lineage == "unknown":
        return False, "Not promoted: nobody knows what it was trained on, so it may have seen the test rows."
    if before is None:
        return True, "First version, so it is the champion."
    if decide is None:
        return False, f"Not promoted: it was not compared with the champion, version {before.number}."
    decision = decide(model_of(before, runtime))
    return decision.promote, decision.reason


def release(model: Model, name: str, runtime: Runtime, decide: Callable[[Model], Decision]) -> Registered:
    """Decide the alias of a registered version again: champion if it beats the current one, challenger otherwise.

    Args:
        model: The candidate; nothing changes if it is the champion.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        runtime: The store.
        decide: Takes the champion and compares the candidate with it.

    Raises:
        ModelError: the candidate is not registered, or the champion's files are missing.
    """
    with _turn(name, runtime) as name:
        found = of_digest(model.digest, name, runtime)
        if found is None:
            raise ModelError(
                f"model: {model.digest[:10]} has no version of '{name}', and only a version can be released; run the "
                "pipeline that trains it, which registers it."
            )
        _settle(found, model, runtime, decide)
        return numbered(found.number, name, runtime).record()


def promote(name: str, version: int, because: str, runtime: Runtime) -> Registered:
    """Make a version the champion, whatever a comparison says.

    Raises:
        ModelError: there is no such version, or the reason is empty.
    """
    because = " ".join(because.split())  # one line of the history
    if not because:
        raise ModelError("because: it is empty; say in a sentence why this version becomes the champion.")
    numbered(version, named(name, runtime), runtime)  # a wrong number is refused without waiting for the lock
    with _turn(name, runtime) as name:
        found, before = numbered(version, name, runtime), champion(name, runtime)
        if before is None or before.number != version:
            place(found, CHAMPION, because, before, runtime)
        return numbered(version, name, runtime).record()


def rollback(name: str, runtime: Runtime) -> int:
    """Make the previous champion the champion again; returns its version.

    Raises:
        ModelError: there is no champion, or it has no predecessor.
    """
    if champion(name, runtime) is None:  # refused without waiting for the lock
        raise _no_earlier(named(name, runtime), runtime)
    with _turn(name, runtime) as name:
        current = champion(name, runtime)
        if current is None or current.replaces is None:
            raise _no_earlier(name, runtime)
        earlier, reason = numbered(current.replaces, name, runtime), f"Rolled back from version {current.number}."
        back = Pending.now(CHAMPION, reason, beaten=current.number, replaces=earlier.replaces)
        move(earlier, back, current, runtime)
        return earlier.number


def _no_earlier(name: str, runtime: Runtime) -> ModelError:
    return ModelError(
        f"model: '{name}' has no earlier champion to go back to in {runtime.tracking}; `agepipe promote` names another."
    )


@contextmanager
def _turn(name: str, runtime: Runtime) -> Iterator[str]:
    """Hold the lock of the registry after recovering from interrupted promotions; yields the registered model's name.

    Raises:
        TrackingError: the store failed during the change.
    """
    store.quiet()
    from mlflow.exceptions import MlflowException

    try:
        with store.locked(runtime, "registry"), store.locked_in_bucket(runtime, "registry"):
            name = named(name, runtime)
            recover(name, runtime)
            yield name
    except MlflowException as error:
        raise TrackingError(
            f"tracking: {runtime.tracking} failed while the registry was changed ({first_line(error)}); once "
            "it answers again, give the same command again, which completes the change."
        ) from error
