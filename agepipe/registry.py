"""The one module that talks to the model registry: versions, who is champion, and why.

A model is registered once, known by its digest. Moving the alias `champion` is what commits a promotion: the reason
is written before it, and a registration that was cut off is carried on by the next one. Registrations and promotions
take turns on a file lock. What MLflow loads to serve a version is `agepipe.serve.served`, with the bundle and the
package's source beside it: no pickle.
"""

import base64
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

import agepipe
from agepipe import environment, store, tracking
from agepipe import versions as tags
from agepipe.config import ReleaseSettings, Where
from agepipe.errors import ModelError
from agepipe.lookup import champion, model_of, named, numbered, of_digest, partition, partition_of, resolve, versions
from agepipe.records import Evaluation, Model, Partition, Registered
from agepipe.serve import bundle
from agepipe.versions import CHALLENGER, CHAMPION, Version

__all__ = ["champion", "partition", "partition_of", "promote", "register", "resolve", "rollback", "versions"]

REQUIREMENTS = ("mlflow", "numpy", "opencv-python", "pillow", "onnxruntime", "pydantic", "polars", "pandas")
"""All that a served model needs, at the versions that are installed here."""


class Decision(Protocol):
    """What a comparison with the champion says; `agepipe.judge.compare.Comparison` is one."""

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
    where: Where,
    *,
    decide: Callable[[Model], Decision] | None = None,
    partition: Partition | None = None,
) -> Registered:
    """Give the model a version and decide what becomes of it; one that has a version keeps it as it stands.

    Args:
        model: The model; its digest is what it is known by.
        evaluation: Its test figures; none for a model that nobody has judged yet.
        release: The name to register it under.
        where: The store.
        decide: Compares the model with the champion that it is given; none leaves it a challenger.
        partition: How its rows were split, kept so that a later split can extend it.

    Raises:
        ModelError: the evaluation is of another model, or the champion's files are gone.
    """
    if evaluation is not None and evaluation.model != model.digest:
        raise ModelError(
            f"evaluation: it judged the model {evaluation.model[:10]}, not {model.digest[:10]}; evaluate the model "
            "that is to be registered."
        )
    with store.locked(where, "registry"):
        found = of_digest(model.digest, release.model, where)
        found = found or _created(model, evaluation, release.model, where, partition)
        if not found.settled:
            _settle(found, model, where, decide)
        return numbered(found.number, release.model, where).record()


def _created(
    model: Model, evaluation: Evaluation | None, name: str, where: Where, partition: Partition | None
) -> Version:
    client, run_id = tracking.client(where), _run(model, where)
    facts = tags.facts(model, evaluation, partition, where.parent)
    if partition is not None:
        client.log_text(run_id, partition.model_dump_json(indent=2), "partition/partition.json")
        client.log_artifact(run_id, str(partition.members), "partition")
    made = client.create_logged_model(tracking.prepare(where), f"{name}-{model.digest[:10]}", run_id)
    with tempfile.TemporaryDirectory() as folder:
        _package(model, Path(folder), made.model_id, run_id)
        client.log_model_artifacts(made.model_id, str(Path(folder) / "model"))
    client.finalize_logged_model(made.model_id, "READY")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Age ranges of faces, by agepipe.")
    version = client.create_model_version(
        name, made.artifact_location, run_id, tags=facts, model_id=made.model_id, await_creation_for=0
    )
    return numbered(int(version.version), name, where)


def _run(model: Model, where: Where) -> str:
    """The run that trained the model, or a new one where that is not in this store."""
    experiment = tracking.prepare(where)
    if model.run and tracking.client(where).search_runs([experiment], f"attributes.run_id = '{model.run}'"):
        return model.run
    with tracking.run(where, kind="release", name=f"register {model.digest[:10]}", key=model.digest) as opened:
        return opened.run_id


def _package(model: Model, folder: Path, model_id: str, run_id: str) -> None:
    """Write `folder/model` as MLflow loads it: from code, with the bundle and the package beside the code."""
    package, kept = Path(agepipe.__file__).parent, (bundle.NETWORK, bundle.CARD, bundle.LINEAGE, bundle.CURVES)
    shutil.copytree(package, folder / "agepipe", ignore=shutil.ignore_patterns("__pycache__"))
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
    tracking.quiet()
    import mlflow.pyfunc
    from mlflow.models import Model as Description
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import Array, DataType
    from pandas import DataFrame

    answer: list[ColSpec | TensorSpec] = [
        *(ColSpec(kind, name) for name, kind in (("range", "string"), ("probability", "double"), ("age", "double"))),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
    grey = cv2.imencode(".png", np.full((64, 64, 3), 128, dtype=np.uint8))[1].tobytes()
    mlflow.pyfunc.save_model(
        folder / "model",
        mlflow_model=Description(model_id=model_id, model_uuid=model_id, run_id=run_id),
        python_model=str(folder / "agepipe" / "serve" / "served.py"),
        artifacts={"bundle": str(folder / "bundle")},
        code_paths=[str(folder / "agepipe")],
        pip_requirements=[f"{name}=={environment.version(name)}" for name in REQUIREMENTS],
        signature=ModelSignature(Schema([ColSpec("string", "image")]), Schema(answer)),
        input_example=DataFrame({"image": [base64.b64encode(grey).decode()]}),
    )


def _settle(found: Version, model: Model, where: Where, decide: Callable[[Model], Decision] | None) -> None:
    before = champion(found.name, where)
    if before is not None and before.number == found.number:  # cut off just after it had become the champion
        _finish(found, CHAMPION, found.replaces, where)
        return
    promote, reason = _decided(model, before, where, decide)
    _place(found, CHAMPION if promote else CHALLENGER, reason, before, where)


def _decided(
    model: Model, before: Version | None, where: Where, decide: Callable[[Model], Decision] | None
) -> tuple[bool, str]:
    if model.lineage == "unknown":
        return False, "Not promoted: nobody knows what it was trained on, so it may have seen the test rows."
    if before is None:
        return True, "The first version, so there was nothing to beat."
    if decide is None:
        return False, f"Not promoted: it was not compared with the champion, version {before.number}."
    decision = decide(model_of(before, where))
    return decision.promote, decision.reason


def _place(found: Version, alias: str, reason: str, before: Version | None, where: Where) -> None:
    """Write the reason, then move the alias, which commits it, then tell the version that was replaced."""
    replaced = before.number if before is not None and alias == CHAMPION else None
    _tag(found, {tags.REASON: reason, **({tags.REPLACES: str(replaced)} if replaced else {})}, where)
    tracking.client(where).update_model_version(found.name, str(found.number), reason)
    tracking.client(where).set_registered_model_alias(found.name, alias, str(found.number))
    _finish(numbered(found.number, found.name, where), alias, replaced, where)


def _finish(found: Version, alias: str, replaced: int | None, where: Where) -> None:
    reason = found.tags[tags.REASON]
    if alias == CHAMPION and CHALLENGER in found.aliases:
        tracking.client(where).delete_registered_model_alias(found.name, CHALLENGER)
    if replaced is not None:
        earlier = numbered(replaced, found.name, where)
        _tag(earlier, {tags.REPLACED_BY: f"version {found.number}: {reason}"}, where)
    _tag(found, {tags.HISTORY: tags.noted(found.tags, alias, reason), tags.REPLACED_BY: "", tags.SETTLED: "yes"}, where)


def _tag(found: Version, values: dict[str, str], where: Where) -> None:
    for key, value in values.items():
        tracking.client(where).set_model_version_tag(found.name, str(found.number), key, value)


def promote(name: str, version: int, because: str, where: Where) -> Registered:
    """Make a version the champion by hand.

    Raises:
        ModelError: there is no such version, or no reason was given.
    """
    if not because.strip():
        raise ModelError("because: it is empty; say in a sentence why this version becomes the champion.")
    name = named(name, where)
    with store.locked(where, "registry"):
        found, before = numbered(version, name, where), champion(name, where)
        if before is None or before.number != version:
            _place(found, CHAMPION, because, before, where)
        return numbered(version, name, where).record()


def rollback(name: str, where: Where) -> int:
    """Give the champion's place back to the version that held it before; returns that version.

    Raises:
        ModelError: there is no champion, or it was the first.
    """
    name = named(name, where)
    with store.locked(where, "registry"):
        current = champion(name, where)
        if current is None or current.replaces is None:
            raise ModelError(f"model: '{name}' has no earlier champion to go back to; `agepipe promote` names another.")
        earlier, reason = numbered(current.replaces, name, where), f"Rolled back from version {current.number}."
        _tag(current, {tags.REPLACED_BY: f"version {earlier.number}: {reason}"}, where)
        _place(earlier, CHAMPION, reason, None, where)
        return earlier.number
