"""The one module that talks to the model registry: versions, who is champion, and why.

A model is registered once, known by its digest. Moving the alias is what commits a promotion
(`agepipe.registry.promotion`); what was cut off is mended by the next command, and a registration carried on.
Registrations and promotions take turns on a file lock. What MLflow loads to serve a version is
`agepipe.model.mlflow_model`, with the bundle and the source of `SHIPPED` beside it: no pickle.
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
from agepipe.core.errors import ModelError, TrackingError
from agepipe.data.records import Partition
from agepipe.evaluation.records import Evaluation
from agepipe.model import bundle
from agepipe.model.records import Model
from agepipe.registry import store, tracking
from agepipe.registry import versions as tags
from agepipe.registry.lookup import champion, model_of, named, numbered, of_digest
from agepipe.registry.promotion import mend, move, place
from agepipe.registry.records import Registered
from agepipe.registry.versions import CHALLENGER, CHAMPION, Pending, Version

PACKAGE = Path(agepipe.__file__).parent
SHIPPED = (
    "__init__.py",
    "core/__init__.py", "core/errors.py", "core/progress.py",
    "model/__init__.py", "model/ages.py", "model/bundle.py", "model/decoding.py", "model/headers.py",
    "model/imaging.py", "model/jpeg.py", "model/png.py", "model/predictor.py",
)  # fmt: skip
"""Files of the package that `agepipe.model.mlflow_model` imports; a registered version carries these and no others."""

HEADLESS = "opencv-python-headless"
"""The build of OpenCV without windows, which also loads where there is no libGL, as in a slim container."""
REQUIREMENTS = ("mlflow", "numpy", HEADLESS, "pillow", "simplejpeg", "onnxruntime", "pydantic", "pandas")
"""Distributions that `SHIPPED` and `agepipe.model.mlflow_model` import."""


class Decision(Protocol):
    """What a comparison with the champion says; `agepipe.evaluation.gate.Comparison` is one."""

    @property
    def promote(self) -> bool:
        """Whether the candidate takes over."""

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
    """Give the model a version and decide what becomes of it; one that has a version keeps it as it stands.

    Args:
        model: The model; its digest is what it is known by.
        evaluation: Its test figures; none for a model that nobody has judged yet.
        release: The name to register it under.
        runtime: The store.
        decide: Compares the model with the champion that it is given; none leaves it a challenger.
        partition: How its rows were split, kept so that a later split can extend it.
        parent: The pipeline's run, named in the version's tags.

    Raises:
        ModelError: the evaluation is of another model, or the champion's files are gone.
    """
    if evaluation is not None and evaluation.model != model.digest:
        raise ModelError(
            f"evaluation: it judged the model {evaluation.model[:10]}, not {model.digest[:10]}; evaluate the model "
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
        client.log_text(run_id, kept.model_dump_json(indent=2), "partition/partition.json")
        client.log_artifact(run_id, str(partition.members), "partition")
    made = client.create_logged_model(tracking.prepare(runtime), f"{name}-{model.digest[:10]}", run_id)
    with tempfile.TemporaryDirectory() as folder:
        _package(model, Path(folder), made.model_id, run_id)
        if evaluation is not None and evaluation.model_card.exists():
            shutil.copy(evaluation.model_card, Path(folder) / "model")
        client.log_model_artifacts(made.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(made.model_id, "READY")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Age ranges of faces, by agepipe.")
    version = client.create_model_version(
        name, made.artifact_location, run_id, tags=facts, model_id=made.model_id, await_creation_for=0
    )
    return numbered(int(version.version), name, runtime)


def _run(model: Model, runtime: Runtime) -> str:
    """The run that trained the model, or a new one where that is not in this store."""
    experiment = tracking.prepare(runtime)
    if model.run and tracking.client(runtime).search_runs([experiment], f"attributes.run_id = '{model.run}'"):
        return model.run
    with tracking.run(runtime, kind="release", name=f"register {model.digest[:10]}", key=model.digest) as opened:
        return opened.run_id


def _package(model: Model, folder: Path, model_id: str, run_id: str) -> None:
    """Write `folder/model` as MLflow loads it: from code, with the bundle and the code that it imports."""
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
        warnings.simplefilter("ignore")  # MLflow's own classes and examples set off its own and pandas' warnings
        _save(folder, model_id, run_id)
    description = folder / "model" / "MLmodel"  # where the bundle lay for a moment is of no use to anyone
    description.write_text(description.read_text(encoding="utf-8").replace(f"{folder}/", ""), encoding="utf-8")


def _save(folder: Path, model_id: str, run_id: str) -> None:
    """Nothing is left for MLflow to infer: it would run the model and pip to do so."""
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
    """Decide what becomes of a version that is not the champion, and carry it out."""
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
    """Decide anew about a registered version: champion if it beats the present one, challenger otherwise.

    Args:
        model: The candidate; the champion itself stays what it is.
        name: The registered model; empty takes `agepipe`, or the only one there is.
        runtime: The store.
        decide: Compares the candidate with the champion that it is given.

    Raises:
        ModelError: the candidate is not registered, or the champion's files are gone.
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
    """Make a version the champion by hand.

    Raises:
        ModelError: there is no such version, or no reason was given.
    """
    because = " ".join(because.split())  # a line of the history
    if not because:
        raise ModelError("because: it is empty; say in a sentence why this version becomes the champion.")
    numbered(version, named(name, runtime), runtime)  # a wrong number is refused without waiting for a turn
    with _turn(name, runtime) as name:
        found, before = numbered(version, name, runtime), champion(name, runtime)
        if before is None or before.number != version:
            place(found, CHAMPION, because, before, runtime)
        return numbered(version, name, runtime).record()


def rollback(name: str, runtime: Runtime) -> int:
    """Give the champion's place back to the version that held it before; returns that version.

    Raises:
        ModelError: there is no champion, or it was the first.
    """
    if champion(name, runtime) is None:  # refused without waiting for a turn
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
    """Take a turn at changing a registered model, which is mended first; gives its name where that was left open.

    Raises:
        TrackingError: the store failed in the middle.
    """
    store.quiet()
    from mlflow.exceptions import MlflowException

    try:
        with store.locked(runtime, "registry"):
            name = named(name, runtime)
            mend(name, runtime)
            yield name
    except MlflowException as error:
        raise TrackingError(
            f"tracking: {runtime.tracking} failed while the registry was changed ({str(error).splitlines()[0]}); once "
            "it answers again give the same command again: what was done is mended, what was not is done."
        ) from error
