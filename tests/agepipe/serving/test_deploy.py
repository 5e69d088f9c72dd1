"""A registered version becomes the bundle that serves: checked against the registry, whole, and switched at once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from versions import registered

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.model import bundle
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup
from agepipe.serving.deploy import Check, checked, current, deploy, difference, folder_of, switch
from agepipe.serving.model_source import Following


def put(tmp_path: Path, runtime: Runtime, sharpness: float) -> int:
    """Register a version of its own sharpness."""
    return registered(make_bundle(tmp_path / f"bundle-{sharpness}", sharpness=sharpness).folder, runtime)


def test_nothing_is_deployed_at_first(runtime: Runtime) -> None:
    assert current(runtime) is None


def test_versions_are_deployed_whole_and_switched(tracked: Runtime, tmp_path: Path) -> None:
    assert [put(tmp_path, tracked, sharpness) for sharpness in (60.0, 20.0)] == [1, 2]
    first = deploy("champion", tracked)
    assert (first.name, first.version) == ("agepipe", 1)
    assert current(tracked) == first
    folder = folder_of(tracked) / first.folder
    assert Predictor.load(folder).card == bundle.read_card(tmp_path / "bundle-60.0")
    assert bundle.digest(folder) == first.digest
    assert {path.name for path in folder.iterdir()} == {bundle.NETWORK, bundle.CARD, "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["result"]["difference"] < 1e-6
    second = deploy("2", tracked)
    assert current(tracked) == second
    assert (second.version, second.digest) == (2, bundle.digest(tmp_path / "bundle-20.0"))
    assert {path.name for path in folder_of(tracked).iterdir()} == {first.folder, second.folder, "current.json"}
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert deploy("1", tracked).folder == first.folder
    assert files == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_deployed_bundle_that_was_changed_is_refused_and_deployed_again(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    first = deploy("champion", tracked)
    folder = folder_of(tracked) / first.folder
    shutil.copy(make_bundle(tmp_path / "other", sharpness=20.0).folder / bundle.NETWORK, folder / bundle.NETWORK)
    with pytest.raises(ModelError, match=rf"{folder}.*version 1"):
        checked(first, tracked)
    with pytest.raises(ModelError, match=str(folder)):
        Following(tracked)
    again = deploy("champion", tracked)
    assert (again.digest, again.folder) == (first.digest, first.folder)
    assert bundle.digest(folder) == first.digest
    assert checked(again, tracked) == folder


def test_a_bundle_that_answers_otherwise_than_the_registry_is_refused(
    tracked: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that was registered with the model is made to turn the pictures around before it looks at them."""
    put(tmp_path, tracked, 60.0)
    (found,) = lookup.versions("agepipe", tracked)
    served = next(Path(found.source.removeprefix("file://")).glob("code/agepipe/model/imaging.py"))
    text = served.read_text(encoding="utf-8")
    changed = text.replace("    square = image[", "    square = 255 - image[")
    assert changed != text
    served.write_text(changed, encoding="utf-8")
    with pytest.raises(ModelError, match="answers otherwise as a bundle than in the registry"):
        deploy("1", tracked)
    assert current(tracked) is None
    assert not list(folder_of(tracked).iterdir())


def test_a_version_that_mlflow_cannot_load_is_refused(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    (found,) = lookup.versions("agepipe", tracked)
    (Path(found.source.removeprefix("file://")) / "MLmodel").write_text("nothing: true", encoding="utf-8")
    with pytest.raises(ModelError, match="MLflow cannot run models:/agepipe/1"):
        deploy("champion", tracked)
    assert current(tracked) is None


def test_what_is_no_version_is_refused(tracked: Runtime, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle")
    with pytest.raises(ModelError, match="needs no deploying"):
        deploy(str(made.folder), tracked)
    with pytest.raises(ModelError, match="agepipe run sample"):
        deploy("champion", tracked)


def test_a_pointer_that_cannot_be_read_says_what_to_do(runtime: Runtime, tmp_path: Path) -> None:
    made = make_bundle(folder_of(runtime) / "agepipe-1-x")
    assert switch(made.folder, "agepipe", 1, runtime) == current(runtime)
    (folder_of(runtime) / "current.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="call `agepipe deploy` again"):
        current(runtime)


def test_tables_of_other_shapes_are_infinitely_apart() -> None:
    assert difference(np.zeros((2, 3)), np.zeros((2, 4))) > Check().tolerance
    assert difference(np.zeros((2, 3)), np.full((2, 3), 0.5)) == 0.5
