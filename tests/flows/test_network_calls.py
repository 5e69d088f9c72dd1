"""No command calls anyone, where nothing tells dependencies that they are being tested: a proxy on loopback listens."""

import base64
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from bundles import make_bundle
from chips import detector_file
from commands import AGEPIPE, free_port
from pages import drawn as drawn_face
from pages import jpeg
from proxies import Proxy, proxy

from agepipe.model.bundle import read_card
from agepipe.model.bundle_files import write_card

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "ingest.size=36", "learn.size=32", "learn.network=shufflenet_v2_x0_5", "learn.batch=32", "learn.epochs=1",
    "search.grid={lr=[0.01]}", "search.folds=2", "final.epochs=2", "evaluate.draws=200",
)  # fmt: skip
IDENTIFIERS = (".cache/Microsoft", ".config/mlflow", ".mlflow", ".prefect", ".optuna", ".config/matplotlib/id")
"""Where a device or an installation would be named in the home folder."""


def run(proxied: Proxy, folder: Path, *command: str | Path, **more: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=proxied.environ(**more), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert proxied.asked == [], command
    return done.stdout


def photograph(path: Path) -> Path:
    path.write_bytes(jpeg(drawn_face()))
    return path


def nothing_kept(home: Path) -> bool:
    """Whether nothing lies in the home folder that could tell this installation from another."""
    return not [name for name in IDENTIFIERS if (home / name).exists()]


def test_predict_calls_nobody_and_leaves_no_device_identifier(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle").folder
    face = photograph(tmp_path / "face.jpg")
    with proxy(tmp_path / "home") as proxied:
        run(proxied, tmp_path, AGEPIPE, "predict", str(face), "--aligned", "--model", str(bundle), "--output", "x.csv")
        assert not list(proxied.home.iterdir())


@pytest.mark.slow
def test_the_user_can_turn_telemetry_on(tmp_path: Path) -> None:
    code = "import os, agepipe.model.predictor; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, found in ({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0"):
        environ = {**Proxy(9, tmp_path).environ(), **given}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_command_calls_anyone(tmp_path: Path, drawn: Path, shared: Path) -> None:
    (tmp_path / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    face = photograph(tmp_path / "face.jpg")
    detector = {"AGEPIPE_DETECTOR": str(detector_file(shared))}  # it is fetched once where there is none
    with proxy(tmp_path / "home") as proxied:

        def agepipe(*words: str) -> str:
            return run(proxied, tmp_path, AGEPIPE, *words, **detector)

        agepipe("--help")
        agepipe("run", "sample", *TINY, "--data", str(drawn))  # with a temporary server, the others with kept ones
        agepipe("up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
        try:
            agepipe("compare", "1", str(another(tmp_path)), "--anew")
            agepipe("evaluate", "--refresh")
            agepipe("deploy", "champion")
            agepipe("predict", str(face), "--output", "x.csv")
            agepipe("camera", "--source", str(face), "--headless", "--output", "seen.png")
            web(proxied, tmp_path, detector)
            loaded(proxied, tmp_path, face)
        finally:
            agepipe("down")
        assert nothing_kept(proxied.home), sorted(proxied.home.rglob("*"))


def another(folder: Path) -> Path:
    """A copy of the trained model that is not the same version."""
    (model,) = (folder / "workspace" / "models").glob("[!.]*/")
    copy = folder / "another"
    shutil.copytree(model, copy)
    write_card(copy, read_card(copy).model_copy(update={"versions": {}}))
    return copy


def web(proxied: Proxy, folder: Path, detector: dict[str, str]) -> None:
    """Start `agepipe web`, open the page, and end it as Ctrl-C does."""
    port = str(free_port())
    command = [AGEPIPE, "web", "--port", port]
    with subprocess.Popen(command, cwd=folder, env=proxied.environ(**detector), stdout=subprocess.DEVNULL) as process:
        try:
            assert answers(f"http://127.0.0.1:{port}/status", process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert proxied.asked == []


def answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def loaded(proxied: Proxy, folder: Path, face: Path) -> None:
    """Load the registered model as a program of the user's does, which knows nothing of agepipe."""
    code = (
        "import sys, mlflow; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        "model = mlflow.pyfunc.load_model('models:/agepipe-sample@champion');"
        "print(list(model.predict([{'image': sys.argv[1]}]).columns))"
    )
    text = base64.b64encode(face.read_bytes()).decode()
    # what the program itself imports is its own affair: MLflow's telemetry is off, that of what the model brings is not
    said = run(proxied, folder, sys.executable, "-P", "-c", code, text, MLFLOW_DISABLE_TELEMETRY="true")
    assert "probability" in said
