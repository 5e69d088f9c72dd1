"""The names that `import agepipe` offers: exactly these, and none of them costs anything until it is used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import SIZE, make_bundle

import agepipe
from agepipe.core import errors

NAMES = {
    "AgeModel", "AgeRanges", "AgepipeError", "ConfigError", "DataError", "DetectorError", "DiedError",
    "DivergedError", "FaceAge", "ImageError", "LeakageError", "ModelError", "OutputError", "ServiceError",
    "SourceError", "StorageError", "TooManyRejectsError", "TrackingError", "TrainingError", "WorkerError",
    "__version__", "load",
}  # fmt: skip


def test_these_are_all_and_each_resolves() -> None:
    assert set(agepipe.__all__) == NAMES
    assert len(agepipe.__all__) == len(NAMES)
    assert set(dir(agepipe)) >= NAMES
    for name in NAMES - {"__version__"}:
        assert getattr(agepipe, name).__name__ == name
        assert getattr(agepipe, name).__module__.startswith("agepipe.")


def test_every_error_class_is_among_them() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes < NAMES
    assert all(issubclass(getattr(agepipe, name), agepipe.AgepipeError) for name in classes)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="AgeRange'"):
        agepipe.AgeRange  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_none_of_its_dependencies() -> None:
    code = (
        "import json, sys; before = set(sys.modules); import agepipe; dir(agepipe); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    imported = set(json.loads(done.stdout))
    assert imported <= {"agepipe", *sys.stdlib_module_names}, imported


def test_the_error_classes_need_nothing_either() -> None:
    code = "import sys; from agepipe import AgepipeError; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numpy", "polars", "pydantic", "torch", "mlflow", "prefect"} & set(done.stdout.split())


def test_a_prediction_needs_nothing_of_training(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    code = (
        "import sys, numpy, agepipe; "
        f"faces = agepipe.load('bundle').predict(numpy.zeros(({SIZE}, {SIZE}, 3), 'uint8'), aligned=True); "
        "print(faces[0].range, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    answer, *imported = done.stdout.split()
    assert answer == "1-10"
    assert not {"torch", "mlflow", "prefect", "sklearn", "matplotlib", "pandas", "onnx"} & set(imported)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_light_install_imports_where_there_is_no_fcntl() -> None:
    """As on Windows."""
    code = (
        "import sys, warnings; sys.modules['fcntl'] = None; warnings.simplefilter('ignore')\n"
        "import agepipe, agepipe.serving.age_model, agepipe.serving.camera_session, agepipe.core.artifacts, flows.cli"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
