"""The commands that use a model, as their user meets them: real processes, with neither torch nor Prefect."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from bundles import SIZE, make_bundle, pictures
from chips import detector_file, real_chips
from commands import AGEPIPE, agepipe, free_port
from endpoints import standing_in
from versions import registered
from videos import read, video

from agepipe.config.runtime import Runtime
from agepipe.core.errors import OutputError
from agepipe.registry import lookup
from agepipe.serving.deploy import current, folder_of
from agepipe.serving.detect import yunet
from agepipe.serving.predict import REJECTS, SCHEMA
from flows import serving

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

NAMES = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Missing())
from flows.cli import main
main()
"""
"""The command line on a machine where these packages are not installed."""


def light(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line with nothing but what `agepipe` without extras brings."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = [re.split(r"[^\w\-]", line)[0] for line in (*extras["train"], *extras["web"])]
    missing = [{"scikit-learn": "sklearn"}.get(name, name) for name in names if name != "agepipe"] + ["pandas"]
    assert {"torch", "prefect", "mlflow", "sklearn", "matplotlib"} <= set(missing)
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(missing), *map(str, words)],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def faces(folder: Path) -> Path:
    folder.mkdir()
    for age, face in zip((5, 30, 55), pictures(np.array([5, 30, 55]), SIZE, seed=1, noise=0.01), strict=True):
        cv2.imwrite(str(folder / f"{age}.png"), face)
    return folder


def test_predict_writes_a_table_and_a_list_of_rejects_without_the_packages_of_training(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    (faces(tmp_path / "faces") / "note.txt").write_text("no picture")
    done = light(
        "predict", "faces", "--model", "bundle", "--output", "out.csv", "--aligned", "--all-ranges", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "3 faces of 3 photographs are in out.csv" in done.stdout
    assert "faces/note.txt: not an image" in done.stderr
    table = pl.read_csv(tmp_path / "out.csv")
    assert table.select("path", "range").rows() == [
        ("faces/30.png", "21 to 40"), ("faces/5.png", "1 to 10"), ("faces/55.png", "over 40"),
    ]  # fmt: skip
    assert table.columns[5:] == ["low", "high", "1 to 10", "11 to 20", "21 to 40", "over 40"]
    assert pl.read_csv(tmp_path / "out.rejects.csv")["reason"].to_list() == ["not an image"]
    assert not (tmp_path / "mlruns").exists()


def test_both_tables_that_must_lie_elsewhere_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rejects = pl.DataFrame([("x.txt", "not an image", "no bytes")], schema=REJECTS, orient="row")
    with pytest.raises(OutputError) as told:
        serving._written(pl.DataFrame(schema=SCHEMA), 0, 0, rejects, tmp_path / "gone" / "out.csv")
    kept = sorted(tmp_path.glob("agepipe-*/*.csv"))
    assert sorted(path.name for path in kept) == ["out.csv", "out.rejects.csv"]
    assert all(str(path) in str(told.value) for path in kept)


def test_what_needs_training_says_what_to_install(tmp_path: Path) -> None:
    up = ("up", "--prefect-port", free_port(), "--mlflow-port", free_port())
    for words in (("run", "sample"), up):
        done = light(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: this needs ")
        assert done.stderr.endswith("which is not installed; install agepipe[train].\n")


@pytest.fixture
def film(tmp_path: Path, shared: Path, sample_archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second of a real face that moves."""
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    return video(tmp_path / "film.mp4", real_chips(sample_archive, step=70)[0][8:9], frames=25)


def test_camera_with_a_bundle_needs_nothing_of_training(film: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    words = ["camera", "--source", film, "--headless", "--output", "out.mp4", "--events", "out.jsonl"]
    done = light(*words, "--model", "bundle", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "25 frames, 1 face," in done.stdout
    assert len(read(tmp_path / "out.mp4")) == 25
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 25


def test_camera_tells_by_its_exit_status_that_something_was_not_read(film: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    folder = faces(tmp_path / "folder")
    (folder / "more.zip").write_bytes(b"PK\x03\x04" + bytes(60))
    words = ["camera", "--source", folder, "--headless", "--output", "last.png", "--model", "bundle"]
    done = agepipe(tmp_path, *words)
    assert done.returncode == serving.UNREADABLE
    assert "more.zip" in done.stderr
    assert (tmp_path / "last.png").exists()


@pytest.mark.slow
def test_camera_that_is_interrupted_finishes_its_files(film: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    long = video(tmp_path / "long.mp4", [cv2.cvtColor(read(film)[0], cv2.COLOR_RGB2BGR)[100:300, 70:270]], frames=2000)
    words = ["camera", "--source", long, "--headless", "--output", "out.mp4", "--model", "bundle"]
    started = subprocess.Popen([AGEPIPE, *map(str, words)], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    draft, limit = tmp_path / ".out.partial.mp4", time.monotonic() + 60
    while (not draft.exists() or draft.stat().st_size < 1000) and time.monotonic() < limit:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    assert 0 < len(read(tmp_path / "out.mp4")) < 2000
    assert "Written to out.mp4" in said
    assert not draft.exists()


@pytest.mark.slow
def test_a_new_champion_is_deployed_unless_told_not_to(tracked: Runtime, tmp_path: Path) -> None:
    for sharpness in (60.0, 20.0, 10.0):
        registered(make_bundle(tmp_path / f"bundle-{sharpness}", sharpness=sharpness).folder, tracked)
    done = agepipe(tmp_path, "promote", "2", "--because", "calmer", "--no-deploy")
    assert (done.returncode, current(tracked)) == (0, None)
    done = agepipe(tmp_path, "promote", "3", "--because", "calmer still")
    assert done.stdout.splitlines()[0] == "agepipe version 3 is now the champion."
    assert done.stdout.splitlines()[1].startswith("agepipe version 3 is deployed in ")
    assert done.returncode == 0, done.stderr
    done = agepipe(tmp_path, "rollback")
    assert "agepipe version 2 is the champion again." in done.stdout
    deployed = current(tracked)
    assert deployed is not None
    assert deployed.version == 2


@pytest.mark.slow
def test_a_champion_that_cannot_be_deployed_is_the_champion_all_the_same(tracked: Runtime, tmp_path: Path) -> None:
    for sharpness in (60.0, 20.0):
        registered(make_bundle(tmp_path / f"bundle-{sharpness}", sharpness=sharpness).folder, tracked)
    second = next(version for version in lookup.versions("agepipe", tracked) if version.number == 2)
    (Path(second.source.removeprefix("file://")) / "MLmodel").write_text("nothing: true", encoding="utf-8")
    done = agepipe(tmp_path, "promote", "2", "--because", "calmer")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: agepipe version 2 is the champion but was not deployed; cameras keep their model: model: MLf"
    )
    assert len(done.stderr.splitlines()) == 1
    champion = lookup.champion("agepipe", tracked)
    assert champion is not None
    assert (champion.number, current(tracked)) == (2, None)


@pytest.mark.slow
def test_a_version_is_deployed_by_the_flow_and_used_by_the_camera(
    tracked: Runtime, film: Path, tmp_path: Path, prefect_server: None
) -> None:
    from prefect.client.orchestration import get_client

    from flows.camera import camera
    from flows.deploy import deploy

    registered(make_bundle(tmp_path / "bundle").folder, tracked)
    done = deploy("champion", runtime=tracked)
    assert done == current(tracked)
    assert (folder_of(tracked) / done.folder / "model.onnx").is_file()
    seen = camera(source=str(film), events=tmp_path / "flow.jsonl", frames=10, runtime=tracked)
    assert (seen.frames, seen.faces, seen.models) == (10, 10, ("agepipe version 1",))
    assert len(seen.picture.read_bytes()) > 1000
    assert {json.loads(line)["model"] for line in (tmp_path / "flow.jsonl").read_text().splitlines()} == set(
        seen.models
    )
    with get_client(sync_client=True) as client:
        made = sorted(client.read_artifacts(), key=lambda item: item.created)  # other tests have written to this server
    told = {item.key: str(item.data) for item in made}
    assert "agepipe version 1" in told["deployed"]
    assert "agepipe version 1" in told["camera"]
    assert "data:image/jpeg;base64," in told["camera"]
    with standing_in(tmp_path / "bundle") as remote:
        seen = camera(source=str(film), endpoint=remote.url, frames=3, runtime=tracked)
    assert (seen.frames, seen.models) == (3, (f"aaaaaaaaaa at {remote.url.removeprefix('http://')}",))
    assert remote.asked >= 4, "what it is, and each frame"
