"""The registered model as MLflow loads it: in another process, without this checkout, from code and not from pickle."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import RANGES, SIZE, make_bundle, pictures

from agepipe.config.runtime import Where
from agepipe.config.stages import ReleaseSettings
from agepipe.evaluation.records import Evaluation
from agepipe.model.decoding import decide
from agepipe.model.imaging import fit
from agepipe.model.predictor import Predictor
from agepipe.registry import lookup, register

ELSEWHERE = """
import importlib.util, json, os, sys, warnings
sys.path = [path for path in sys.path if not os.path.exists(os.path.join(path, "agepipe", "__init__.py"))]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("agepipe") is None, "agepipe must not be there before the model is loaded"
warnings.simplefilter("error", ImportWarning)
from pathlib import Path
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
images = json.loads(sys.stdin.read())
found = model.predict(pandas.DataFrame({"image": images}))
import agepipe
print(json.dumps({
    "answers": found.to_dict("records"),
    "package": agepipe.__file__,
    "torch": "torch" in sys.modules,
    "one": model.predict({"image": images[0]}).to_dict("records"),
    "records": model.predict([{"image": images[0]}]).to_dict("records"),
}))
"""


def encoded(picture: np.ndarray, suffix: str = ".png") -> str:
    whole = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    return base64.b64encode(whole.tobytes()).decode()


@pytest.fixture
def version(tracked: Where, tmp_path: Path) -> Path:
    """The folder of a registered MLflow model."""
    model = make_bundle(tmp_path / "bundle", decoding="median", thresholds={90: 0.9})
    evaluation = Evaluation(
        digest="e", model=model.digest, rows="r", count=1, folder=model.folder, metrics={}, intervals={}
    )
    register.register(model, evaluation, ReleaseSettings(), tracked)
    (found,) = lookup.versions("agepipe", tracked)
    return Path(found.source.removeprefix("file://"))


def test_another_process_without_this_checkout_loads_it(version: Path, tmp_path: Path) -> None:
    faces = pictures(np.array([5, 30, 55]), 40, seed=3, noise=0.01)
    text = [encoded(face) for face in faces]
    done = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, str(version)],
        input=json.dumps(text), capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert Path(said["package"]).is_relative_to(version / "code")
    assert not said["torch"]
    predictor = Predictor.load(tmp_path / "bundle")
    expected = predictor.predict(np.stack([fit(face, SIZE) for face in faces]))
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


def test_nothing_in_the_model_is_pickled_or_names_this_machine(version: Path, tmp_path: Path) -> None:
    files = [path for path in version.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".pyc"}, path
        assert not path.read_bytes().startswith(b"\x80"), f"{path} begins as a pickle does"
    for name in ("MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml"):
        assert "/tmp" not in (version / name).read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in files) < 5_000_000


def test_its_requirements_are_those_that_it_imports(version: Path) -> None:
    lines = (version / "requirements.txt").read_text(encoding="utf-8").split()
    assert [line.partition("==")[0] for line in lines] == list(register.REQUIREMENTS)
    assert all(line.partition("==")[2] for line in lines)


@pytest.fixture
def served(version: Path) -> object:
    """The Python model itself, loaded in this process."""
    import warnings

    import mlflow.pyfunc

    with warnings.catch_warnings():
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
