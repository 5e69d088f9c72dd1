"""A registered version becomes the bundle that serves: checked against the registry, whole, and switched at once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from versions import registered
from workspaces import runtime_in

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.model import bundle
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup, tracking
from agepipe.serving.deploy import Check, checked, current, deploy, difference, folder_of, switch
from agepipe.serving.model_source import DeployedModel


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with a store of two versions, of which the first is deployed; MLflow takes seconds to run one."""
    folder = tmp_path_factory.mktemp("origin")
    shutil.copytree(empty_store, folder / "mlruns")
    for number, sharpness in ((1, 60.0), (2, 20.0)):
        registered(make_bundle(folder / f"bundle-{number}", sharpness=sharpness).folder, runtime_in(folder))
    deploy("champion", runtime_in(folder))
    return folder


@pytest.fixture
def deployed(origin: Path, tmp_path: Path) -> Runtime:
    """A copy of that folder, whose store leads to its own files."""
    shutil.copytree(origin, tmp_path / "copy")
    tracking.prepare(runtime_in(tmp_path / "copy"))
    return runtime_in(tmp_path / "copy")


def test_nothing_is_deployed_at_first(runtime: Runtime) -> None:
    assert current(runtime) is None


def test_versions_are_deployed_whole_and_switched(origin: Path, deployed: Runtime) -> None:
    first = current(deployed)
    assert first is not None
    assert (first.name, first.version) == ("agepipe", 1)
    folder = folder_of(deployed) / first.folder
    assert Predictor.load(folder).card == bundle.read_card(origin / "bundle-1")
    assert bundle.digest(folder) == first.digest
    assert {path.name for path in folder.iterdir()} == {bundle.NETWORK, bundle.CARD, "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["result"]["difference"] < 1e-6
    second = deploy("2", deployed)
    assert current(deployed) == second
    assert (second.version, second.digest) == (2, bundle.digest(origin / "bundle-2"))
    assert {path.name for path in folder_of(deployed).iterdir()} == {first.folder, second.folder, "current.json"}
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert deploy("1", deployed).folder == first.folder
    assert files == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.slow
def test_a_deployed_bundle_that_was_changed_is_refused_and_deployed_again(origin: Path, deployed: Runtime) -> None:
    first = current(deployed)
    assert first is not None
    folder = folder_of(deployed) / first.folder
    shutil.copy(origin / "bundle-2" / bundle.NETWORK, folder / bundle.NETWORK)
    with pytest.raises(ModelError, match=rf"{folder}.*version 1"):
        checked(first, deployed)
    with pytest.raises(ModelError, match=str(folder)):
        DeployedModel(deployed)
    again = deploy("champion", deployed)
    assert (again.digest, again.folder) == (first.digest, first.folder)
    assert bundle.digest(folder) == first.digest
    assert checked(again, deployed) == folder


def test_a_bundle_that_answers_otherwise_than_the_registry_is_refused(deployed: Runtime) -> None:
    """The code that was registered with the model is made to turn the pictures around before it looks at them."""
    first, before = current(deployed), sorted(folder_of(deployed).iterdir())
    (found, _) = lookup.versions("agepipe", deployed)
    served = next(Path(found.source.removeprefix("file://")).glob("code/agepipe/model/imaging.py"))
    text = served.read_text(encoding="utf-8")
    changed = text.replace("    square = image[", "    square = 255 - image[")
    assert changed != text
    served.write_text(changed, encoding="utf-8")
    with pytest.raises(ModelError, match="predicts differently as a bundle"):
        deploy("2", deployed)
    assert current(deployed) == first
    assert sorted(folder_of(deployed).iterdir()) == before


def test_what_is_no_version_is_refused(tracked: Runtime, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle")
    with pytest.raises(ModelError, match="is the folder of a bundle"):
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
