"""The registered model as MLflow loads it: in another process, without this checkout, from code and not from pickle."""

import ast
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bundles import RANGES, SIZE, make_bundle, pictures
from versions import registered

from agepipe.config.runtime import Runtime
from agepipe.model.decoding import decide
from agepipe.model.imaging import fit
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup, register

ELSEWHERE = """
import importlib.util, json, os, re, sys, warnings
sys.path = [path for path in sys.path if not os.path.exists(os.path.join(path, "agepipe", "__init__.py"))]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("agepipe") is None, "agepipe must not be there before the model is loaded"
warnings.simplefilter("error", ImportWarning)
from pathlib import Path
import mlflow.pyfunc, pandas, cv2
model = mlflow.pyfunc.load_model(sys.argv[1])
images = json.loads(sys.stdin.read())
found = model.predict(pandas.DataFrame({"image": images}))
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "agepipe"]
print(json.dumps({
    "answers": found.to_dict("records"),
    "files": ours,
    "windows": re.search(r"GUI:\\s+(\\w+)", cv2.getBuildInformation())[1],
    "torch": "torch" in sys.modules,
    "one": model.predict({"image": images[0]}).to_dict("records"),
    "records": model.predict([{"image": images[0]}]).to_dict("records"),
}))
"""


FACES = pictures(np.array([5, 30, 55]), 40, seed=3, noise=0.01)
LIMIT = 1550
"""Lines of code that a registered version may carry."""
DISTRIBUTIONS = {"cv2": register.HEADLESS, "PIL": "pillow"}
"""Distributions that are named otherwise than what is imported of them."""
NO_INDEX = ("Failed to fetch", "error sending request", "network")
"""What uv says where it reaches no index of packages."""


def imported(file: Path) -> Iterator[str]:
    """Names of modules, and of what may be modules, that a file imports where it runs."""
    whole = ast.parse(file.read_text(encoding="utf-8"))
    whole.body = [node for node in whole.body if not _for_type_checkers(node)]
    for node in ast.walk(whole):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))


def _for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def closure(module: str) -> tuple[set[str], set[str]]:
    """Files of the package that a module imports, also indirectly, itself among them; and other packages' names."""
    files, others, waiting = set[str](), set[str](), [module]
    while waiting:
        name = waiting.pop()
        place = register.PACKAGE.joinpath(*name.split(".")[1:])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if name.partition(".")[0] != "agepipe":
            others.add(name.partition(".")[0])
        elif file.is_file() and (relative := file.relative_to(register.PACKAGE).as_posix()) not in files:
            files.add(relative)
            waiting += [name.rpartition(".")[0] or name, *imported(file)]
    return files, others - sys.stdlib_module_names


def encoded(picture: np.ndarray, suffix: str = ".png") -> str:
    whole = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    return base64.b64encode(whole.tobytes()).decode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle", decoding="median", thresholds={90: 0.9}).folder


@pytest.fixture(scope="module")
def version(bundle: Path, empty_store: Path) -> Path:
    """The folder of a registered MLflow model."""
    store = shutil.copytree(empty_store, bundle.with_name("mlruns"))
    runtime = Runtime(workspace=bundle.with_name("workspace"), tracking=f"sqlite:///{store}/mlflow.db")
    registered(bundle, runtime)
    (found,) = lookup.versions("agepipe", runtime)
    return Path(found.source.removeprefix("file://"))


def elsewhere(python: Path | str, version: Path, home: Path) -> dict[str, Any]:
    """What `ELSEWHERE` prints when that Python loads the version and predicts `FACES`, with its own code alone."""
    done = subprocess.run(
        [python, "-P", "-c", ELSEWHERE, str(version)],
        input=json.dumps([encoded(face) for face in FACES]), capture_output=True, text=True, cwd=home, timeout=240,
        env={
            "PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",  # other tests look at the same version
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    code = version / "code" / "agepipe"
    assert {Path(file).relative_to(code).as_posix() for file in said["files"]} == set(register.SHIPPED)
    return said


@pytest.mark.slow
def test_another_process_without_this_checkout_loads_it(bundle: Path, version: Path, tmp_path: Path) -> None:
    said = elsewhere(sys.executable, version, tmp_path)
    assert not said["torch"]
    predictor = Predictor.load(bundle)
    expected = predictor.predict(np.stack([fit(face, SIZE) for face in FACES]))
    assert [answer["range"] for answer in said["answers"]] == ["1-10", "21-40", "over40"]
    for row, answer in enumerate(said["answers"]):
        assert answer["probabilities"] == pytest.approx(expected.probabilities[row].tolist(), abs=1e-6)
        assert answer["probability"] == max(answer["probabilities"])
        assert answer["age"] == pytest.approx(float(expected.years[row]), abs=1e-4)
    assert [(answer["low"], answer["high"]) for answer in said["answers"]] == predictor.card.spans(
        expected.probabilities
    )
    assert said["answers"][2]["high"] is None
    assert said["one"] == said["records"] == said["answers"][:1]


@pytest.mark.slow
def test_it_needs_no_more_than_its_requirements(bundle: Path, version: Path, tmp_path: Path) -> None:
    uv, python = shutil.which("uv"), tmp_path / "environment" / "bin" / "python"
    if uv is None:
        pytest.skip("uv, which makes the environment, is not installed")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True, timeout=60)
    done = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "-r", version / "requirements.txt"],
        capture_output=True, text=True, cwd=tmp_path, timeout=240,
    )  # fmt: skip
    if done.returncode and any(words in done.stderr for words in NO_INDEX):
        pytest.skip(f"no index of packages can be reached: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said = elsewhere(python, version, tmp_path)
    assert said["windows"] == "NONE"
    expected = Predictor.load(bundle).predict(np.stack([fit(face, SIZE) for face in FACES]))
    found = np.array([answer["probabilities"] for answer in said["answers"]])
    assert found == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_version_carries_the_code_that_it_imports_and_no_other(version: Path) -> None:
    files, others = closure("agepipe.model.mlflow_model")
    assert files - {"model/mlflow_model.py"} == set(register.SHIPPED)
    assert {name.partition("/")[0] for name in files} == {"__init__.py", "core", "model"}
    assert {DISTRIBUTIONS.get(name, name) for name in others} == set(register.REQUIREMENTS)
    assert sum(len((register.PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in files) < LIMIT
    carried = {path.relative_to(version).as_posix() for path in version.rglob("*.py")}
    assert carried == {"mlflow_model.py", *(f"code/agepipe/{name}" for name in register.SHIPPED)}


def test_nothing_in_the_model_is_pickled_or_names_this_machine(version: Path) -> None:
    files = [path for path in version.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".pyc"}, path
        assert not path.read_bytes().startswith(b"\x80"), f"{path} begins as a pickle does"
    for name in ("MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml"):
        text = (version / name).read_text(encoding="utf-8")
        assert "/tmp" not in text
        assert str(register.PACKAGE) not in text
    assert sum(path.stat().st_size for path in files) < 5_000_000


def test_its_requirements_are_those_that_it_imports(version: Path) -> None:
    lines = (version / "requirements.txt").read_text(encoding="utf-8").split()
    assert [line.partition("==")[0] for line in lines] == list(register.REQUIREMENTS)
    assert all(line.partition("==")[2] for line in lines)
    assert f"{register.HEADLESS}=={metadata.version('opencv-python')}" in lines


@pytest.fixture(scope="module")
def served(version: Path) -> object:
    """The Python model itself, loaded in this process."""
    import warnings

    import mlflow.pyfunc

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setattr(sys, "path", [*sys.path])  # MLflow puts the version's own code first
        warnings.simplefilter("ignore")
        return mlflow.pyfunc.load_model(str(version)).unwrap_python_model()


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_it_answers_by_the_decoding_of_its_card_and_its_age_lies_in_the_range(tmp_path: Path) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from agepipe.model.mlflow_model import ServedModel

    folder = make_bundle(tmp_path / "model" / "artifacts" / "bundle", sharpness=9.0, decoding="median").folder
    model, predictor = ServedModel(), Predictor.load(folder)
    model.load_context(PythonModelContext({"bundle": str(folder)}, {}))
    faces = pictures(np.arange(1, 60, 2), 40, seed=3, noise=0.01)
    said = predictor.predict(np.stack([fit(face, SIZE) for face in faces]))
    median = decide(said.probabilities, "median")
    assert (median != decide(said.probabilities, "likeliest")).any(), "the two differ on some"
    answers = model.predict([encoded(face) for face in faces])
    assert answers["range"].to_list() == [predictor.card.ranges.names[label] for label in median]
    assert answers["probability"].to_numpy() == pytest.approx(
        said.probabilities[np.arange(len(median)), median], abs=1e-6
    )
    assert (RANGES.within(median, answers["age"].to_numpy()) == answers["age"]).all()


def test_it_takes_frames_lists_and_mappings(served: object) -> None:
    import pandas as pd

    text = encoded(pictures(np.array([30]), 40, seed=3, noise=0.01)[0], ".jpg")
    asked = [
        pd.DataFrame({"image": [text]}), [text], [{"image": text}], {"image": text}, {"image": [text]},
        ["data:image/jpeg;base64," + text],
    ]  # fmt: skip
    answers = [served.predict(given) for given in asked]  # type: ignore[attr-defined]
    assert all(answer.equals(answers[0]) for answer in answers)
    assert list(answers[0].columns) == ["range", "probability", "age", "low", "high", "probabilities"]
    assert len(served.predict([])) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("not base64!", "image: row 1 is not base64"),
        (base64.b64encode(b"hello, no picture").decode(), r"image: row 1 cannot be used: .*not an image"),
        (encoded(np.zeros((40, 40, 3), np.uint8))[:40], r"image: row 1 cannot be used"),
        (None, "image: row 1 is NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_by_row(served: object, bad: object, why: str) -> None:
    from mlflow.exceptions import MlflowException

    good = encoded(np.full((40, 40, 3), 128, np.uint8))
    with pytest.raises(MlflowException, match=why) as caught:
        served.predict([good, bad])  # type: ignore[attr-defined]
    assert caught.value.get_http_status_code() == 400


def test_a_frame_without_the_column_is_refused(served: object) -> None:
    import pandas as pd
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="'image' is needed"):
        served.predict(pd.DataFrame({"picture": ["x"]}))  # type: ignore[attr-defined]
